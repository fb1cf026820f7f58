//! Writes the line that describes a task in the plugin's custom section.

use std::fmt::Write as _;

use quote::ToTokens as _;

use crate::outcome::Outcome;
use crate::signature::Parameters;

/// Returns one JSON object and a line feed. `output` is missing if the signature does not show it, `state` and
/// `calls` if there is none.
pub(crate) fn line(
    name: &str,
    attributes: &[syn::Attribute],
    parameters: &Parameters<'_>,
    outcome: &Outcome<'_>,
    calls: &[&str],
) -> String {
    let mut line = format!(
        r#"{{"abi":{},"name":{},"kind":{},"doc":{},"input":{}"#,
        pcluster_abi::VERSION,
        json(name),
        json(outcome.kind.name()),
        json(&documentation(attributes)),
        json(&type_name(parameters.item)),
    );
    for (key, ty) in [("output", outcome.output), ("state", parameters.state)] {
        if let Some(ty) = ty {
            line.push_str(&format!(r#","{key}":{}"#, json(&type_name(ty))));
        }
    }
    if !calls.is_empty() {
        let calls: Vec<String> = calls.iter().map(|call| json(call)).collect();
        line.push_str(&format!(r#","calls":[{}]"#, calls.join(",")));
    }
    line.push_str("}\n");
    line
}

/// Returns a JSON string. A dependency for this one function would slow down the build of every plugin.
fn json(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            control if control < ' ' => {
                // Writing to a `String` cannot fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Returns the doc comment, without the space after each `///`.
fn documentation(attributes: &[syn::Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let syn::Meta::NameValue(meta) = &attribute.meta else { return None };
        match &meta.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) if meta.path.is_ident("doc") => {
                Some(text.value())
            }
            _ => None,
        }
    });
    let lines: Vec<String> = lines.map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned()).collect();
    lines.join("\n").trim().to_owned()
}

/// Returns the type as written, with the spaces of `rustfmt`: `Vec<(String, u8)>` instead of `Vec < (String , u8) >`.
pub(crate) fn type_name(ty: &syn::Type) -> String {
    let tokens = ty.to_token_stream().to_string();
    let mut name = String::with_capacity(tokens.len());
    for piece in tokens.split_whitespace() {
        // Only words need the space between them: `dyn Shape`, `&'a str`.
        if name.ends_with(is_word) && piece.starts_with(|next| is_word(next) || next == '\'') {
            name.push(' ');
        }
        name.push_str(piece);
    }
    for (tight, spaced) in [(",", ", "), (", )", ",)"), (";", "; "), ("+", " + "), ("=", " = "), ("->", " -> ")] {
        name = name.replace(tight, spaced);
    }
    name
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use proc_macro2::TokenStream;
    use quote::quote;

    use super::*;
    use crate::arguments::Arguments;
    use crate::errors::Errors;

    fn describe(function: &str, arguments: TokenStream) -> String {
        let function: syn::ItemFn = syn::parse_str(function).expect("a function");
        let mut errors = Errors::default();
        let arguments = Arguments::parse(arguments, &mut errors);
        let parameters = Parameters::parse(&function.sig, arguments.init.as_ref(), &mut errors).expect("parameters");
        let outcome = Outcome::parse(&function.sig, arguments.generator, &mut errors).expect("an outcome");
        line("f", &function.attrs, &parameters, &outcome, &arguments.calls)
    }

    #[test]
    fn a_task_is_described_in_one_line() {
        let function = "
            /// Splits a line into words.
            ///
            ///     indented
            #[inline]
            fn f(item: String) -> impl Iterator<Item = String> {}";
        assert_eq!(
            describe(function, quote!(generator)),
            "{\"abi\":1,\"name\":\"f\",\"kind\":\"generator\",\
             \"doc\":\"Splits a line into words.\\n\\n    indented\",\"input\":\"String\",\"output\":\"String\"}\n"
        );
        assert_eq!(
            describe("fn f(item: u8) {}", quote!()),
            "{\"abi\":1,\"name\":\"f\",\"kind\":\"sink\",\"doc\":\"\",\"input\":\"u8\"}\n"
        );
        assert_eq!(
            describe("fn f(item: u8, model: &mut Model<u8>) -> u16 {}", quote!(init = load)),
            "{\"abi\":1,\"name\":\"f\",\"kind\":\"map\",\"doc\":\"\",\"input\":\"u8\",\"output\":\"u16\",\
             \"state\":\"Model<u8>\"}\n"
        );
        assert_eq!(
            describe("fn f(item: u8) {}", quote!(calls(kv, http))),
            "{\"abi\":1,\"name\":\"f\",\"kind\":\"sink\",\"doc\":\"\",\"input\":\"u8\",\"calls\":[\"http\",\"kv\"]}\n"
        );
    }

    #[test]
    fn what_json_cannot_hold_is_escaped() {
        assert_eq!(json("a \"b\" \\ \n \t \u{1} größe"), r#""a \"b\" \\ \n \t \u0001 größe""#);
    }

    #[test]
    fn types_are_spaced_as_people_write_them() {
        for name in [
            "Vec<(String, u8)>",
            "(u8,)",
            "[u8; 4]",
            "std::collections::BTreeMap<String, Vec<u8>>",
            "Box<dyn Shape + Send + 'static>",
            "Cow<'static, str>",
            "fn(u8) -> Option<&'static str>",
            "Box<dyn Iterator<Item = u8>>",
            "<Shape as Side>::Length",
        ] {
            assert_eq!(type_name(&syn::parse_str(name).expect(name)), name);
        }
    }
}
