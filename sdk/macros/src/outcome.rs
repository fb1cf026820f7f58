//! Reads the outputs of a task from its return type.
//!
//! Traits cannot distinguish an `Option` that drops the item from an `Option` that is a value, or a failed `Result` from a
//! `Result` that is a value, because serde can write all four. So the outermost `Result` and `Option`, and the `Result` of an
//! iterator's items, are recognized by name. A type alias that hides one of them counts as a plain value.

use crate::errors::Errors;

/// The kind of a task. It decides how the runtime treats the returned value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One output for each item.
    Map,
    /// One output or none.
    Filter,
    /// Any number of outputs.
    Generator,
    /// No output, ever.
    Sink,
}

impl Kind {
    /// Returns the name of the kind in the plugin's description.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Filter => "filter",
            Self::Generator => "generator",
            Self::Sink => "sink",
        }
    }
}

/// The outputs of a function.
pub(crate) struct Outcome<'a> {
    pub(crate) kind: Kind,
    /// `true` if the return type is a `Result`.
    pub(crate) fallible: bool,
    /// `true` if each output of a generator is a `Result`.
    fallible_items: bool,
    /// The type of one output. `None` if the signature does not show it.
    pub(crate) output: Option<&'a syn::Type>,
}

impl<'a> Outcome<'a> {
    /// Reads the return type. `None` if it has a mistake.
    pub(crate) fn parse(signature: &'a syn::Signature, generator: bool, errors: &mut Errors) -> Option<Self> {
        let returned = match &signature.output {
            syn::ReturnType::Default => None,
            syn::ReturnType::Type(_, ty) => Some(ungroup(ty)),
        };
        let success = returned.and_then(|ty| argument_of(ty, "Result"));
        let fallible = success.is_some();
        let plain = |kind, output| Some(Self { kind, fallible, fallible_items: false, output });
        match success.or(returned).filter(|ty| !is_unit(ty)) {
            None if generator => {
                errors.add(&signature.ident, "a generator returns its outputs: write `-> impl Iterator<Item = …>`");
                None
            }
            None => plain(Kind::Sink, None),
            Some(ty) if generator => {
                let element = element_of(ty);
                let success = element.and_then(|ty| argument_of(ty, "Result"));
                let fallible_items = success.is_some();
                Some(Self { kind: Kind::Generator, fallible, fallible_items, output: success.or(element) })
            }
            Some(ty) if iterator(ty).is_some() => {
                errors.add(ty, "a task that gives an iterator is a generator: write `#[task(generator)]`");
                None
            }
            Some(ty) => match argument_of(ty, "Option") {
                Some(some) => plain(Kind::Filter, Some(some)),
                None => plain(Kind::Map, Some(ty)),
            },
        }
    }

    /// Returns the function of `pcluster_sdk::rt` that emits the outputs.
    pub(crate) const fn giver(&self) -> &'static str {
        match self.kind {
            Kind::Map => "give",
            Kind::Filter => "give_some",
            Kind::Generator if self.fallible_items => "give_results",
            Kind::Generator => "give_all",
            Kind::Sink => "give_none",
        }
    }
}

fn is_unit(ty: &syn::Type) -> bool {
    matches!(ty, syn::Type::Tuple(tuple) if tuple.elems.is_empty())
}

/// Unwraps a type. A type that came through another macro may be wrapped in an invisible group.
fn ungroup(mut ty: &syn::Type) -> &syn::Type {
    loop {
        ty = match ty {
            syn::Type::Group(group) => &group.elem,
            syn::Type::Paren(paren) => &paren.elem,
            _ => return ty,
        }
    }
}

/// Returns the last segment of a path: `Result<u8, Error>` of `std::result::Result<u8, Error>`.
fn last_segment(ty: &syn::Type) -> Option<&syn::PathSegment> {
    match ty {
        syn::Type::Path(path) if path.qself.is_none() => path.path.segments.last(),
        _ => None,
    }
}

/// Returns the arguments between `<` and `>`.
fn arguments(segment: &syn::PathSegment) -> impl Iterator<Item = &syn::GenericArgument> {
    let arguments = match &segment.arguments {
        syn::PathArguments::AngleBracketed(arguments) => Some(&arguments.args),
        _ => None,
    };
    arguments.into_iter().flatten()
}

/// Returns the types among these arguments.
fn type_arguments(segment: &syn::PathSegment) -> impl Iterator<Item = &syn::Type> {
    arguments(segment).filter_map(|argument| match argument {
        syn::GenericArgument::Type(ty) => Some(ungroup(ty)),
        _ => None,
    })
}

/// Returns `T` if `ty` is `name<T, …>`.
fn argument_of<'a>(ty: &'a syn::Type, name: &str) -> Option<&'a syn::Type> {
    let segment = last_segment(ty).filter(|segment| segment.ident == name)?;
    type_arguments(segment).next()
}

/// Returns the `Iterator<Item = …>` or `IntoIterator<…>` bound of a type. Such types are `impl Iterator<…>` and `Box<dyn
/// Iterator<…>>`.
fn iterator(ty: &syn::Type) -> Option<&syn::PathSegment> {
    let bounds = match ty {
        syn::Type::ImplTrait(ty) => &ty.bounds,
        syn::Type::TraitObject(ty) => &ty.bounds,
        _ => return iterator(argument_of(ty, "Box")?),
    };
    bounds.iter().find_map(|bound| match bound {
        syn::TypeParamBound::Trait(bound) => {
            bound.path.segments.last().filter(|segment| segment.ident.to_string().ends_with("Iterator"))
        }
        _ => None,
    })
}

/// Returns the item type of iterating over `ty`. `None` unless `ty` is an iterator that names its item, an array, or a container
/// of one type such as `Vec<T>`.
fn element_of(ty: &syn::Type) -> Option<&syn::Type> {
    if let Some(segment) = iterator(ty) {
        return arguments(segment).find_map(|argument| match argument {
            syn::GenericArgument::AssocType(item) if item.ident == "Item" => Some(ungroup(&item.ty)),
            _ => None,
        });
    }
    if let syn::Type::Array(array) = ty {
        return Some(&array.elem);
    }
    let mut types = type_arguments(last_segment(ty)?);
    let element = types.next();
    element.filter(|_| types.next().is_none())
}

#[cfg(test)]
mod tests {
    use quote::ToTokens as _;

    use super::*;

    /// Returns the properties of an outcome, or the message. They are the kind, whether it can fail, the giver and the type of an
    /// output.
    fn outcome(returned: &str, generator: bool) -> Result<(Kind, bool, &'static str, String), String> {
        let function: syn::ItemFn = syn::parse_str(&format!("fn f(item: In) {returned} {{}}")).expect("a function");
        let mut errors = Errors::default();
        match Outcome::parse(&function.sig, generator, &mut errors) {
            Some(outcome) => {
                let output = outcome.output.map(|ty| ty.to_token_stream().to_string().replace(' ', ""));
                Ok((outcome.kind, outcome.fallible, outcome.giver(), output.unwrap_or_default()))
            }
            None => Err(errors.messages().concat()),
        }
    }

    #[test]
    fn the_return_type_of_a_plain_task_tells_its_kind() {
        for (returned, kind, fallible, giver, output) in [
            ("", Kind::Sink, false, "give_none", ""),
            ("-> ()", Kind::Sink, false, "give_none", ""),
            ("-> Result<(), Error>", Kind::Sink, true, "give_none", ""),
            ("-> Out", Kind::Map, false, "give", "Out"),
            ("-> Vec<Out>", Kind::Map, false, "give", "Vec<Out>"),
            ("-> impl Serialize", Kind::Map, false, "give", "implSerialize"),
            ("-> Alias", Kind::Map, false, "give", "Alias"),
            ("-> std::result::Result<Out, Error>", Kind::Map, true, "give", "Out"),
            ("-> Option<Out>", Kind::Filter, false, "give_some", "Out"),
            ("-> Result<core::option::Option<Out>>", Kind::Filter, true, "give_some", "Out"),
            ("-> Option<Option<Out>>", Kind::Filter, false, "give_some", "Option<Out>"),
        ] {
            let found = outcome(returned, false);
            assert_eq!(found, Ok((kind, fallible, giver, output.to_owned())), "{returned}");
        }
    }

    #[test]
    fn the_item_of_a_generator_is_found_where_it_is_written() {
        for (returned, giver, output) in [
            ("impl Iterator<Item = Out>", "give_all", "Out"),
            ("impl IntoIterator<Item = Result<Out, Error>> + Send", "give_results", "Out"),
            ("Result<impl Iterator<Item = Out>, Error>", "give_all", "Out"),
            ("Box<dyn Iterator<Item = Out>>", "give_all", "Out"),
            ("Vec<Out>", "give_all", "Out"),
            ("Result<Vec<Result<Out, Error>>, Error>", "give_results", "Out"),
            ("Option<Out>", "give_all", "Out"),
            ("[Out; 3]", "give_all", "Out"),
            ("BTreeMap<Key, Out>", "give_all", ""),
            ("Words", "give_all", ""),
        ] {
            let (kind, fallible, found_giver, found) = outcome(&format!("-> {returned}"), true).expect(returned);
            assert_eq!((kind, fallible), (Kind::Generator, returned.starts_with("Result")), "{returned}");
            assert_eq!((found_giver, found.as_str()), (giver, output), "{returned}");
        }
    }

    #[test]
    fn a_generator_and_its_attribute_go_together() {
        let message = outcome("-> impl Iterator<Item = Out>", false).expect_err("a message");
        assert!(message.contains("`#[task(generator)]`"), "{message}");
        let message = outcome("", true).expect_err("a message");
        assert!(message.contains("returns its outputs"), "{message}");
    }
}
