//! Reads the parameters of a task: an item by value, then optional references to its context and its state.

use syn::spanned::Spanned as _;

use crate::errors::Errors;

/// The parameters of a task.
pub(crate) struct Parameters<'a> {
    /// The type of the item.
    pub(crate) item: &'a syn::Type,
    /// The type of the context, without the reference. `None` if the task takes no context.
    pub(crate) context: Option<&'a syn::Type>,
    /// The type of the state, without the reference. `None` if the task takes no state.
    pub(crate) state: Option<&'a syn::Type>,
}

impl<'a> Parameters<'a> {
    /// Reads the parameters. A task has a state if `init` makes one. `None` if there is a mistake.
    pub(crate) fn parse(
        signature: &'a syn::Signature,
        init: Option<&syn::ExprPath>,
        errors: &mut Errors,
    ) -> Option<Self> {
        check_qualifiers(signature, errors);
        check_generics(&signature.generics, errors);
        let mut inputs = signature.inputs.iter();
        let item = match inputs.next() {
            None => {
                errors.add(&signature.ident, "a task takes the item as its first parameter");
                None
            }
            Some(syn::FnArg::Receiver(receiver)) => {
                errors.add(receiver, "a task is a plain function: it cannot take `self`");
                None
            }
            Some(syn::FnArg::Typed(item)) => check_item(&item.ty, errors),
        };
        let last = init.and_then(|init| take_state(&mut inputs, init, errors));
        let state = last.and_then(|ty| check_state(ty, errors));
        let context = match inputs.next() {
            Some(syn::FnArg::Typed(context)) => check_context(&context.ty, errors),
            _ => None,
        };
        if let Some(more) = inputs.next() {
            let message = match init {
                None => {
                    "a task takes an item, its context as an optional `&Context<Config>`, and nothing more; a state that is \
                     made once needs `#[task(init = …)]`"
                }
                Some(_) => {
                    "a task takes an item, its context as an optional `&Context<Config>`, its state, and nothing more"
                }
            };
            errors.add(more, message);
        }
        Some(Self { item: item?, context, state })
    }
}

/// Takes the type of the last parameter.
fn take_state<'a>(
    inputs: &mut syn::punctuated::Iter<'a, syn::FnArg>,
    init: &syn::ExprPath,
    errors: &mut Errors,
) -> Option<&'a syn::Type> {
    if let Some(syn::FnArg::Typed(state)) = inputs.next_back() {
        return Some(&state.ty);
    }
    let message = "`init` makes a state, which the task takes as its last parameter: write `state: &State` or \
                   `state: &mut State` after the item";
    errors.add(init, message);
    None
}

fn check_qualifiers(signature: &syn::Signature, errors: &mut Errors) {
    if let Some(token) = &signature.asyncness {
        errors.add(token, "a task cannot be `async`: it may block, because a node runs many tasks at once");
    }
    if let Some(token) = &signature.unsafety {
        errors.add(token, "a task cannot be `unsafe`: a node cannot uphold its conditions");
    }
    if let Some(abi) = &signature.abi {
        errors.add(abi, "a task is a plain Rust function: leave out `extern`");
    }
    if let Some(variadic) = &signature.variadic {
        errors.add(variadic, "a task cannot take a variable number of arguments");
    }
}

/// Refuses type parameters, because no caller chooses the types. Lifetimes are harmless.
fn check_generics(generics: &syn::Generics, errors: &mut Errors) {
    for parameter in &generics.params {
        if !matches!(parameter, syn::GenericParam::Lifetime(_)) {
            errors.add(parameter, "a task cannot be generic: name the type");
        }
    }
}

fn check_item<'a>(ty: &'a syn::Type, errors: &mut Errors) -> Option<&'a syn::Type> {
    let message = match ty {
        syn::Type::Reference(_) => "a task takes its item by value, for example `String` instead of `&str`",
        syn::Type::ImplTrait(_) => "a task cannot be generic: name the type",
        _ => return Some(ty),
    };
    errors.add(ty, message);
    None
}

fn check_context<'a>(ty: &'a syn::Type, errors: &mut Errors) -> Option<&'a syn::Type> {
    match ty {
        syn::Type::Reference(reference) if reference.mutability.is_none() => return Some(&reference.elem),
        syn::Type::Reference(reference) if is_context(&reference.elem) => {
            let mutable = reference.mutability.span();
            errors.push(syn::Error::new(mutable, "a task cannot change its context: write `&Context<Config>`"));
        }
        _ => {
            let message = "the second parameter of a task is its context: write `&Context<Config>`; a state comes last, with \
                           `#[task(init = …)]`";
            errors.add(ty, message);
        }
    }
    None
}

fn check_state<'a>(ty: &'a syn::Type, errors: &mut Errors) -> Option<&'a syn::Type> {
    let (state, borrowed) = match ty {
        syn::Type::Reference(reference) => (&*reference.elem, true),
        _ => (ty, false),
    };
    let message = if is_context(state) {
        "with `init` the last parameter of a task is its state: write `state: &State` or `state: &mut State` after the context"
    } else if !borrowed {
        "a task borrows its state, which the next item needs too: write `&State` or `&mut State`"
    } else if matches!(state, syn::Type::ImplTrait(_)) {
        "a task cannot be generic: name the type"
    } else if is_unsized(state) {
        "the state is the value that `init` returns: name its type, for example `&String` instead of `&str`"
    } else {
        return Some(state);
    };
    errors.add(ty, message);
    None
}

fn is_context(ty: &syn::Type) -> bool {
    matches!(ty, syn::Type::Path(path) if path.path.segments.last().is_some_and(|segment| segment.ident == "Context"))
}

fn is_unsized(ty: &syn::Type) -> bool {
    match ty {
        syn::Type::Slice(_) | syn::Type::TraitObject(_) => true,
        syn::Type::Path(path) => path.path.is_ident("str"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use quote::ToTokens as _;

    use super::*;

    fn messages(function: &str, init: Option<&str>) -> Vec<String> {
        let function: syn::ItemFn = syn::parse_str(function).expect("a function");
        let init = init.map(|path| syn::parse_str(path).expect("a path"));
        let mut errors = Errors::default();
        Parameters::parse(&function.sig, init.as_ref(), &mut errors);
        errors.messages()
    }

    fn refuses(function: &str, message: &str) {
        let messages = messages(function, None);
        assert!(messages.len() == 1 && messages[0].contains(message), "{function}: {messages:?}");
    }

    fn refuses_with_init(function: &str, message: &str) {
        let messages = messages(function, Some("load"));
        assert!(messages.len() == 1 && messages[0].contains(message), "{function}: {messages:?}");
    }

    #[test]
    fn an_item_and_a_context_are_found() {
        let function: syn::ItemFn = syn::parse_quote!(
            fn f<'a>(Order { id, .. }: Order, cx: &'a Context<Config>) -> u8 {}
        );
        let mut errors = Errors::default();
        let parameters = Parameters::parse(&function.sig, None, &mut errors).expect("parameters");
        assert_eq!(parameters.item.to_token_stream().to_string(), "Order");
        let context = parameters.context.expect("a context");
        assert_eq!(context.to_token_stream().to_string(), "Context < Config >");
        assert!(parameters.state.is_none());
        assert_eq!(errors.messages(), Vec::<String>::new());
    }

    #[test]
    fn with_init_the_last_parameter_is_the_state() {
        let init = syn::parse_quote!(load);
        for (function, context) in [
            ("fn f(item: u8, model: &Model) {}", false),
            ("fn f(item: u8, Model { .. }: &mut Model) {}", false),
            ("fn f(item: u8, cx: &Context<Config>, model: &Model) {}", true),
            ("fn f<'a>(item: u8, cx: &'a Context, model: &'a mut Model) -> Option<u8> {}", true),
        ] {
            let function: syn::ItemFn = syn::parse_str(function).expect("a function");
            let mut errors = Errors::default();
            let parameters = Parameters::parse(&function.sig, Some(&init), &mut errors).expect("parameters");
            assert_eq!(parameters.state.expect("a state").to_token_stream().to_string(), "Model");
            assert_eq!(parameters.context.is_some(), context);
            assert_eq!(errors.messages(), Vec::<String>::new());
        }
    }

    #[test]
    fn each_wrong_state_is_named() {
        refuses_with_init("fn f(item: u8) {}", "takes as its last parameter: write `state: &State`");
        refuses_with_init("fn f(item: u8, model: Model) {}", "write `&State` or `&mut State`");
        refuses_with_init("fn f(item: u8, cx: &Context<Config>) {}", "after the context");
        refuses_with_init("fn f(item: u8, model: &Model, cx: &Context) {}", "after the context");
        refuses_with_init("fn f(item: u8, text: &str) {}", "`&String` instead of `&str`");
        refuses_with_init("fn f(item: u8, shape: &dyn Shape) {}", "`&String` instead of `&str`");
        refuses_with_init("fn f(item: u8, shape: &impl Shape) {}", "cannot be generic");
        refuses_with_init("fn f(item: u8, cx: Context, model: &Model) {}", "write `&Context<Config>`");
        refuses_with_init("fn f(item: u8, cx: &Context, more: u8, model: &Model) {}", "nothing more");
        refuses_with_init("fn f(self, model: &Model) {}", "cannot take `self`");
    }

    #[test]
    fn each_wrong_parameter_is_named() {
        refuses("fn f() {}", "takes the item as its first parameter");
        refuses("fn f(self) {}", "cannot take `self`");
        refuses("fn f(item: &str) {}", "by value");
        refuses("fn f(item: impl Into<u8>) {}", "cannot be generic");
        refuses("fn f(item: u8, cx: Context) {}", "write `&Context<Config>`");
        refuses("fn f(item: u8, cx: &mut Context) {}", "cannot change its context");
        refuses("fn f(item: u8, model: &mut Model) {}", "a state comes last, with `#[task(init = …)]`");
        refuses("fn f(item: u8, cx: &Context, more: u8) {}", "nothing more");
        refuses("fn f(item: u8, cx: &Context, model: &mut Model) {}", "needs `#[task(init = …)]`");
    }

    #[test]
    fn each_wrong_qualifier_is_named() {
        refuses("async fn f(item: u8) {}", "cannot be `async`");
        refuses("unsafe fn f(item: u8) {}", "cannot be `unsafe`");
        refuses("extern \"C\" fn f(item: u8) {}", "leave out `extern`");
        refuses("fn f<T>(item: T) {}", "cannot be generic");
        refuses("fn f<const N: usize>(item: [u8; N]) {}", "cannot be generic");
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        assert_eq!(messages("async unsafe fn f(item: &str, cx: u8, more: u8) {}", None).len(), 5);
        assert_eq!(messages("async fn f() {}", Some("load")).len(), 3);
        assert_eq!(messages("fn f(item: &str, cx: u8, more: u8, model: Model) {}", Some("load")).len(), 4);
    }
}
