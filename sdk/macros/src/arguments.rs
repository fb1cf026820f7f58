//! What stands in the parentheses: `#[task(generator, name = "other")]`.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt as _;
use syn::parse::Parser as _;

use crate::errors::Errors;

/// The longest name of a task, in bytes.
const NAME_LENGTH: usize = 64;

/// The arguments of one attribute.
#[derive(Default)]
pub(crate) struct Arguments {
    /// Whether the function gives any number of outputs.
    pub(crate) generator: bool,
    /// The name to use instead of the function's.
    name: Option<syn::LitStr>,
}

impl Arguments {
    /// Reads the arguments; what cannot be read is left out and added to `errors`.
    pub(crate) fn parse(tokens: TokenStream, errors: &mut Errors) -> Self {
        let mut arguments = Self::default();
        let parser = syn::meta::parser(|meta| {
            if meta.path.is_ident("generator") {
                arguments.generator = true;
                Ok(())
            } else if meta.path.is_ident("name") {
                arguments.name = Some(meta.value()?.parse()?);
                Ok(())
            } else {
                Err(meta.error("expected `generator` or `name = \"…\"`"))
            }
        });
        if let Err(error) = parser.parse2(tokens) {
            errors.push(error);
        }
        arguments
    }

    /// The name that chains will know the task by.
    pub(crate) fn name(&self, function: &syn::Ident, errors: &mut Errors) -> String {
        let (name, span) = match &self.name {
            Some(literal) => (literal.value(), literal.span()),
            None => (function.unraw().to_string(), function.span()),
        };
        check(&name, span, errors);
        name
    }
}

/// A task's name becomes part of an export, of a manifest and of log lines, so it is kept to plain characters.
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
    fn an_unknown_argument_is_refused() {
        assert_eq!(name(quote!(generater), "split").1, ["expected `generator` or `name = \"…\"`"]);
        assert_eq!(name(quote!(name = 5), "split").1, ["expected string literal"]);
    }
}
