//! The arguments of the attribute: `#[task(generator, init = load, calls(http, kv), name = "other", schema = false)]`.

mod calls;

use proc_macro2::{Span, TokenStream};
use quote::ToTokens as _;
use syn::ext::IdentExt as _;
use syn::parse::Parser as _;

use crate::errors::Errors;

/// The longest name of a task, in bytes.
const NAME_LENGTH: usize = 64;

/// The arguments of one attribute.
#[derive(Default)]
pub(crate) struct Arguments {
    /// `true` if the function returns any number of outputs.
    pub(crate) generator: bool,
    /// The function that makes the state of the task.
    pub(crate) init: Option<syn::ExprPath>,
    /// What the task calls, such as `http`.
    pub(crate) calls: Vec<&'static str>,
    /// The name to use instead of the function's name.
    name: Option<syn::LitStr>,
    /// `false` if the plugin tells no schemas of the task.
    schema: Option<bool>,
}

impl Arguments {
    /// Reads the arguments. Skips unreadable ones and adds them to `errors`.
    pub(crate) fn parse(tokens: TokenStream, errors: &mut Errors) -> Self {
        let mut arguments = Self::default();
        let parser = syn::meta::parser(|meta| {
            if meta.path.is_ident("generator") {
                arguments.generator = true;
                Ok(())
            } else if meta.path.is_ident("init") {
                arguments.init = Some(function(meta.value()?)?);
                Ok(())
            } else if meta.path.is_ident("calls") {
                calls::parse(&meta, &mut arguments.calls)
            } else if meta.path.is_ident("name") {
                arguments.name = Some(meta.value()?.parse()?);
                Ok(())
            } else if meta.path.is_ident("schema") {
                arguments.schema = Some(meta.value()?.parse::<syn::LitBool>()?.value);
                Ok(())
            } else {
                Err(meta.error("expected `generator`, `init = …`, `calls(…)`, `name = \"…\"` or `schema = false`"))
            }
        });
        if let Err(error) = parser.parse2(tokens) {
            errors.push(error);
        }
        arguments
    }

    /// Returns `true` if the plugin may tell the schemas of the task.
    pub(crate) fn has_schema(&self) -> bool {
        self.schema != Some(false)
    }

    /// Returns the name by which chains know the task.
    pub(crate) fn name(&self, function: &syn::Ident, errors: &mut Errors) -> String {
        let (name, span) = match &self.name {
            Some(literal) => (literal.value(), literal.span()),
            None => (function.unraw().to_string(), function.span()),
        };
        check(&name, span, errors);
        name
    }
}

/// Reads the path of a function. The compiler checks whether the function exists and fits.
fn function(input: syn::parse::ParseStream<'_>) -> syn::Result<syn::ExprPath> {
    let expression: syn::Expr = input.parse()?;
    match expression {
        syn::Expr::Path(path) => Ok(path),
        // A path that came through another macro may be wrapped in an invisible group.
        syn::Expr::Group(group) => function.parse2(group.expr.into_token_stream()),
        other => {
            let message =
                "`init` names the function that makes the state: write `init = load`, with `fn load(config: Config)`";
            Err(syn::Error::new_spanned(other, message))
        }
    }
}

/// Checks the name of a task. Only plain characters are allowed, because exports, manifests and log lines contain it.
fn check(name: &str, span: Span, errors: &mut Errors) {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > NAME_LENGTH || !name.bytes().all(allowed) {
        let message = format!(
            "`{name}` cannot name a task: it takes 1 to {NAME_LENGTH} of the characters `A-Z`, `a-z`, `0-9`, `_` and `-`; \
             give another with `#[task(name = \"…\")]`"
        );
        errors.push(syn::Error::new(span, message));
    }
}

#[cfg(test)]
mod tests {
    use proc_macro2::{Delimiter, Group};
    use quote::{format_ident, quote};

    use super::*;

    fn name(tokens: TokenStream, function: &str) -> (String, Vec<String>) {
        let mut errors = Errors::default();
        let name = Arguments::parse(tokens, &mut errors).name(&format_ident!("{function}"), &mut errors);
        (name, errors.messages())
    }

    #[test]
    fn the_function_names_the_task_unless_the_attribute_does() {
        assert_eq!(name(quote!(), "split"), ("split".to_owned(), vec![]));
        assert_eq!(name(quote!(), "r#type"), ("type".to_owned(), vec![]));
        assert_eq!(name(quote!(generator, name = "to-words"), "split"), ("to-words".to_owned(), vec![]));
    }

    #[test]
    fn a_name_of_other_characters_is_refused() {
        for bad in ["", "to words", "größe", "a.b", &"x".repeat(65)] {
            let (_, messages) = name(quote!(name = #bad), "split");
            assert_eq!(messages.len(), 1, "{bad}");
            assert!(messages[0].contains("cannot name a task"), "{messages:?}");
        }
        assert_eq!(name(quote!(), "größe").1.len(), 1);
    }

    #[test]
    fn init_takes_the_path_of_a_function() {
        for path in ["load", "Model::load", "crate::model::load::<Config>", "<Model as Load>::load"] {
            let tokens: TokenStream = format!("generator, init = {path}, name = \"x\"").parse().expect("tokens");
            let mut errors = Errors::default();
            let arguments = Arguments::parse(tokens, &mut errors);
            assert_eq!(errors.messages(), Vec::<String>::new());
            let init = arguments.init.expect("a path").to_token_stream().to_string();
            assert_eq!(init.replace(' ', ""), path.replace(' ', ""));
            assert!(arguments.generator && arguments.name.is_some());
        }
        let (mut errors, group) = (Errors::default(), Group::new(Delimiter::None, quote!(Model::load)));
        assert!(Arguments::parse(quote!(init = #group), &mut errors).init.is_some() && errors.is_empty());
        for other in ["\"load\"", "load()", "|config: Config| config.model"] {
            let (_, messages) = name(format!("init = {other}").parse().expect("tokens"), "split");
            assert_eq!(messages.len(), 1, "{other}");
            assert!(messages[0].contains("write `init = load`"), "{messages:?}");
        }
    }

    #[test]
    fn an_unknown_argument_is_refused() {
        assert_eq!(
            name(quote!(generater), "split").1,
            ["expected `generator`, `init = …`, `calls(…)`, `name = \"…\"` or `schema = false`"]
        );
        assert_eq!(name(quote!(name = 5), "split").1, ["expected string literal"]);
    }
}
