//! What a task takes: an item by value and, if it wants one, a reference to its context.

use syn::spanned::Spanned as _;

use crate::errors::Errors;

/// The parameters of a task.
pub(crate) struct Parameters<'a> {
    /// The type of the item.
    pub(crate) item: &'a syn::Type,
    /// The type that the context is a reference to.
    pub(crate) context: Option<&'a syn::Type>,
}

impl<'a> Parameters<'a> {
    /// Checks everything before the arrow. `None` if an error was found.
    pub(crate) fn parse(signature: &'a syn::Signature, errors: &mut Errors) -> Option<Self> {
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
        let context = match inputs.next() {
            Some(syn::FnArg::Typed(context)) => check_context(&context.ty, errors),
            _ => None,
        };
        if let Some(third) = inputs.next() {
            errors.add(third, "a task takes an item and, if it wants, `&Context<Config>`, but nothing more");
        }
        Some(Self { item: item?, context })
    }
}

fn check_qualifiers(signature: &syn::Signature, errors: &mut Errors) {
    if let Some(token) = &signature.asyncness {
        errors.add(token, "a task cannot be `async`: it may block, a node runs many at once");
    }
    if let Some(token) = &signature.unsafety {
        errors.add(token, "a task cannot be `unsafe`: a node could not keep its conditions");
    }
    if let Some(abi) = &signature.abi {
        errors.add(abi, "a task is a plain Rust function: leave out `extern`");
    }
    if let Some(variadic) = &signature.variadic {
        errors.add(variadic, "a task cannot take a variable number of arguments");
    }
}

/// Lifetimes do no harm; a type would have to be chosen by somebody, and there is nobody to choose it.
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
        syn::Type::Reference(reference) => {
            let mutable = reference.mutability.span();
            errors.push(syn::Error::new(mutable, "a task cannot change its context: write `&Context<Config>`"));
        }
        _ => errors.add(ty, "the second parameter of a task is its context: write `&Context<Config>`"),
    }
    None
}

#[cfg(test)]
mod tests {
    use quote::ToTokens as _;

    use super::*;

    fn messages(function: &str) -> Vec<String> {
        let function: syn::ItemFn = syn::parse_str(function).expect("a function");
        let mut errors = Errors::default();
        Parameters::parse(&function.sig, &mut errors);
        errors.messages()
    }

    fn refuses(function: &str, message: &str) {
        let messages = messages(function);
        assert!(messages.len() == 1 && messages[0].contains(message), "{function}: {messages:?}");
    }

    #[test]
    fn an_item_and_a_context_are_found() {
        let function: syn::ItemFn = syn::parse_quote!(
            fn f<'a>(Order { id, .. }: Order, cx: &'a Context<Config>) -> u8 {}
        );
        let mut errors = Errors::default();
        let parameters = Parameters::parse(&function.sig, &mut errors).expect("parameters");
        assert_eq!(parameters.item.to_token_stream().to_string(), "Order");
        let context = parameters.context.expect("a context");
        assert_eq!(context.to_token_stream().to_string(), "Context < Config >");
        assert_eq!(errors.messages(), Vec::<String>::new());
    }

    #[test]
    fn each_wrong_parameter_is_named() {
        refuses("fn f() {}", "takes the item as its first parameter");
        refuses("fn f(self) {}", "cannot take `self`");
        refuses("fn f(item: &str) {}", "by value");
        refuses("fn f(item: impl Into<u8>) {}", "cannot be generic");
        refuses("fn f(item: u8, cx: Context) {}", "write `&Context<Config>`");
        refuses("fn f(item: u8, cx: &mut Context) {}", "cannot change its context");
        refuses("fn f(item: u8, cx: &Context, more: u8) {}", "nothing more");
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
        assert_eq!(messages("async unsafe fn f(item: &str, cx: u8, more: u8) {}").len(), 5);
    }
}
