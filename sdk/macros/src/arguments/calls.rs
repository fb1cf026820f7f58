//! Reads what a task calls: `calls(http, kv)`.

use pcluster_abi::call::GROUPS;
use syn::meta::ParseNestedMeta;

/// The most letters between a name and the one that is meant.
const DISTANCE_MAX: usize = 2;

/// Reads the names within `calls(…)`, in the order of the ABI.
pub(super) fn parse(meta: &ParseNestedMeta<'_>, calls: &mut Vec<&'static str>) -> syn::Result<()> {
    if !meta.input.peek(syn::token::Paren) {
        return Err(meta.error("`calls` names what the task calls: write `calls(http, kv)`"));
    }
    let content;
    syn::parenthesized!(content in meta.input);
    let names = content.parse_terminated(syn::Path::parse_mod_style, syn::Token![,])?;
    if names.is_empty() {
        return Err(meta.error("`calls()` names nothing: leave it out, or write `calls(http, kv)`"));
    }
    for name in names {
        match GROUPS.iter().find(|group| name.is_ident(group)) {
            Some(group) if !calls.contains(group) => calls.push(group),
            Some(group) => return Err(syn::Error::new_spanned(name, format!("`{group}` stands here twice"))),
            None => return Err(syn::Error::new_spanned(&name, unknown(&name))),
        }
    }
    calls.sort_unstable();
    Ok(())
}

/// Returns what to say about a name that is not known.
fn unknown(path: &syn::Path) -> String {
    let name = path.get_ident().map(ToString::to_string).unwrap_or_default();
    let nearest = GROUPS.iter().map(|group| (distance(&name, group), group)).min();
    match nearest {
        Some((distance, group)) if distance <= DISTANCE_MAX => {
            format!("no task can call `{name}`; did you mean `{group}`?")
        }
        _ => format!("a task can call {}", GROUPS.map(|group| format!("`{group}`")).join(", ")),
    }
}

/// Returns how many letters must be changed, added or removed to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, other) in to.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use proc_macro2::TokenStream;
    use quote::quote;

    use crate::arguments::Arguments;
    use crate::errors::Errors;

    fn calls(tokens: TokenStream) -> Result<Vec<&'static str>, Vec<String>> {
        let mut errors = Errors::default();
        let calls = Arguments::parse(tokens, &mut errors).calls;
        if errors.is_empty() { Ok(calls) } else { Err(errors.messages()) }
    }

    #[test]
    fn the_calls_are_read_in_the_order_of_the_abi() {
        assert_eq!(calls(quote!(calls(kv, http), generator)), Ok(vec!["http", "kv"]));
        assert_eq!(
            calls(quote!(calls(secrets, publish, objects, kv, http,))),
            Ok(vec!["http", "kv", "objects", "publish", "secrets"])
        );
        assert_eq!(calls(quote!(generator)), Ok(vec![]));
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_nearest() {
        for (written, message) in [
            (quote!(calls(htttp)), "no task can call `htttp`; did you mean `http`?"),
            (quote!(calls(http, object)), "no task can call `object`; did you mean `objects`?"),
            (quote!(calls(secret)), "no task can call `secret`; did you mean `secrets`?"),
            (quote!(calls(sql_server)), "a task can call `http`, `kv`, `objects`, `publish`, `secrets`"),
            (quote!(calls(kv, kv)), "`kv` stands here twice"),
            (quote!(calls), "`calls` names what the task calls: write `calls(http, kv)`"),
            (quote!(calls = "http"), "`calls` names what the task calls: write `calls(http, kv)`"),
            (quote!(calls()), "`calls()` names nothing: leave it out, or write `calls(http, kv)`"),
        ] {
            assert_eq!(calls(written), Err(vec![message.to_owned()]));
        }
    }
}
