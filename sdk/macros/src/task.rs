//! Expands a `#[task]` into the unchanged function, its export, and its description.

use proc_macro2::{Literal, Span, TokenStream, TokenTree};
use quote::{ToTokens as _, format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;

use crate::arguments::Arguments;
use crate::description;
use crate::errors::Errors;
use crate::outcome::Outcome;
use crate::signature::Parameters;

/// Expands `#[task(arguments)] item`.
pub(crate) fn expand(arguments: TokenStream, item: &TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let arguments = Arguments::parse(arguments, &mut errors);
    let function: syn::ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            errors.push(syn::Error::new(error.span(), format!("`#[task]` belongs on a function: {error}")));
            return quote_errors(errors, item);
        }
    };
    let name = arguments.name(&function.sig.ident, &mut errors);
    let parameters = Parameters::parse(&function.sig, arguments.init.as_ref(), &mut errors);
    let outcome = Outcome::parse(&function.sig, arguments.generator, &mut errors);
    match (parameters, outcome, errors.is_empty()) {
        (Some(parameters), Some(outcome), true) => {
            let state = state(&name, arguments.init.as_ref(), parameters.state);
            let export = export(&name, &function.sig, &parameters, &outcome);
            let line = description::line(&name, &function.attrs, &parameters, &outcome, &arguments.calls);
            let description = describe(&line);
            let schema = arguments.has_schema().then(|| schema(&name, &function.sig, &parameters, &outcome));
            quote! {
                // The attribute dictates the signature, so lints must not ask for another.
                #[allow(
                    clippy::needless_pass_by_value,
                    clippy::ptr_arg,
                    clippy::trivially_copy_pass_by_ref,
                    clippy::unnecessary_wraps,
                )]
                #function

                const _: () = {
                    #state
                    #export
                    #description
                    #schema
                };
            }
        }
        _ => quote_errors(errors, item),
    }
}

/// Returns the mistakes and the function. Without the function, each call of it would be a further mistake.
fn quote_errors(errors: Errors, item: &TokenStream) -> TokenStream {
    let errors = errors.into_compile_errors();
    quote!(#errors #item)
}

/// Returns the state of a task and the export that makes it. `None` if the task has no state.
fn state(name: &str, init: Option<&syn::ExprPath>, state: Option<&syn::Type>) -> Option<TokenStream> {
    let export_name = format!("{}{name}", pcluster_abi::INIT_PREFIX);
    let (init, state) = (init?, state?);
    let init_site = Span::mixed_site().located_at(init.span());
    let make = quote_spanned!(init_site=> ::pcluster_sdk::rt::make::<#state, _, _>(#init));
    Some(quote! {
        ::std::thread_local! {
            static __PCLUSTER_STATE: ::pcluster_sdk::rt::State<#state> =
                const { ::pcluster_sdk::rt::State::new(|| #make) };
        }

        #[cfg_attr(target_arch = "wasm32", unsafe(export_name = #export_name))]
        #[allow(dead_code)]
        extern "C" fn __pcluster_init() -> i32 {
            ::pcluster_sdk::rt::initialize(&__PCLUSTER_STATE)
        }
    })
}

/// Returns the exports that a node calls to run a task.
///
/// They are compiled for other targets too, where nothing calls them. So `cargo test` and editors show at once an item that
/// cannot be read or an output that cannot be written.
fn export(name: &str, signature: &syn::Signature, parameters: &Parameters<'_>, outcome: &Outcome<'_>) -> TokenStream {
    let export_name = format!("{}{name}", pcluster_abi::TASK_PREFIX);
    let each_name = format!("{}{name}", pcluster_abi::EACH_PREFIX);
    let function = &signature.ident;
    let item = parameters.item;
    let item_name = description::type_name(item);
    let giver = format_ident!("{}", outcome.giver());
    // Mistakes are reported at the type that does not fit. The hygiene stays that of the macro.
    let at = |ty: &syn::Type| Span::mixed_site().located_at(ty.span());
    let returned = match &signature.output {
        syn::ReturnType::Default => Span::mixed_site(),
        syn::ReturnType::Type(_, ty) => at(ty),
    };
    let question_mark = outcome.fallible.then(|| quote_spanned!(returned=> ?));
    // Each argument is written once, because it must be the same to the compiler in all places.
    let (run, arguments) = match parameters.context {
        None => (quote!(run::<#item, _>), quote!(__item)),
        Some(context) => {
            let argument = quote_spanned!(at(context)=> __context);
            (quote!(run_with_context::<#item, _, _>), quote!(__item, #argument))
        }
    };
    let state = parameters.state.map(|state| quote_spanned!(at(state)=> __state));
    let all = state.iter().fold(arguments.clone(), |arguments, state| quote!(#arguments, #state));
    let mut give = quote_spanned!(returned=> ::pcluster_sdk::rt::#giver(#function(#all) #question_mark));
    if state.is_some() {
        give = quote!(::pcluster_sdk::rt::with_state(&__PCLUSTER_STATE, |#state| #give));
    }
    quote! {
        #[allow(dead_code)]
        fn __pcluster_handle(item: &[u8]) -> i32 {
            ::pcluster_sdk::rt::#run(item, #item_name, |#arguments| #give)
        }

        #[cfg_attr(target_arch = "wasm32", unsafe(export_name = #export_name))]
        #[allow(dead_code)]
        unsafe extern "C" fn __pcluster_task(pointer: *mut u8, length: usize) -> i32 {
            // SAFETY: the host hands over a buffer that it got from `pcluster_alloc` and filled.
            unsafe { ::pcluster_sdk::rt::one(pointer, length, __pcluster_handle) }
        }

        #[cfg_attr(target_arch = "wasm32", unsafe(export_name = #each_name))]
        #[allow(dead_code)]
        extern "C" fn __pcluster_each() -> i32 {
            ::pcluster_sdk::rt::each(__pcluster_handle)
        }
    }
}

/// Returns the export that tells the schemas of a task. It is nothing unless the SDK has the feature `schema`, which only the SDK
/// knows.
fn schema(name: &str, signature: &syn::Signature, parameters: &Parameters<'_>, outcome: &Outcome<'_>) -> TokenStream {
    let export_name = format!("{}{name}", pcluster_abi::SCHEMA_PREFIX);
    let (item, lifetimes) = (parameters.item, &signature.generics);
    let output = outcome.output.filter(|ty| !has_word(ty.to_token_stream(), "impl")).map(|ty| quote!(, #ty));
    quote!(::pcluster_sdk::__schema! { #export_name, [#lifetimes], #item #output })
}

/// Returns `true` if a word is among these tokens. A type with `impl` cannot be named elsewhere.
fn has_word(tokens: TokenStream, word: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == word,
        TokenTree::Group(group) => has_word(group.stream(), word),
        _ => false,
    })
}

/// Writes the line into the custom section. Only on wasm, because sections obey other rules elsewhere and no tool reads them.
fn describe(line: &str) -> TokenStream {
    let bytes = Literal::byte_string(line.as_bytes());
    let length = line.len();
    let section = pcluster_abi::SECTION;
    quote! {
        #[cfg(target_arch = "wasm32")]
        #[used]
        #[unsafe(link_section = #section)]
        static __PCLUSTER_DESCRIPTION: [u8; #length] = *#bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(arguments: &str, item: &str) -> String {
        expand(arguments.parse().expect("tokens"), &item.parse().expect("tokens")).to_string()
    }

    #[test]
    fn a_map_task_is_exported_and_described() {
        let function = quote! {
            /// Doubles.
            fn double(item: u32) -> u32 { item * 2 }
        };
        let line = "{\"abi\":1,\"name\":\"double\",\"kind\":\"map\",\"doc\":\"Doubles.\",\"input\":\"u32\",\"output\":\"u32\"}\n";
        let (length, bytes) = (line.len(), Literal::byte_string(line.as_bytes()));
        let expected = quote! {
            #[allow(
                clippy::needless_pass_by_value,
                clippy::ptr_arg,
                clippy::trivially_copy_pass_by_ref,
                clippy::unnecessary_wraps,
            )]
            #function

            const _: () = {
                #[allow(dead_code)]
                fn __pcluster_handle(item: &[u8]) -> i32 {
                    ::pcluster_sdk::rt::run::<u32, _>(item, "u32", |__item| ::pcluster_sdk::rt::give(double(__item)))
                }

                #[cfg_attr(target_arch = "wasm32", unsafe(export_name = "pcluster_task:double"))]
                #[allow(dead_code)]
                unsafe extern "C" fn __pcluster_task(pointer: *mut u8, length: usize) -> i32 {
                    unsafe { ::pcluster_sdk::rt::one(pointer, length, __pcluster_handle) }
                }

                #[cfg_attr(target_arch = "wasm32", unsafe(export_name = "pcluster_each:double"))]
                #[allow(dead_code)]
                extern "C" fn __pcluster_each() -> i32 {
                    ::pcluster_sdk::rt::each(__pcluster_handle)
                }

                #[cfg(target_arch = "wasm32")]
                #[used]
                #[unsafe(link_section = "pcluster")]
                static __PCLUSTER_DESCRIPTION: [u8; #length] = *#bytes;
                ::pcluster_sdk::__schema! { "pcluster_schema:double", [], u32, u32 }
            };
        };
        assert_eq!(expand(quote!(), &function).to_string(), expected.to_string());
    }

    #[test]
    fn a_task_with_a_state_has_a_place_for_it_and_an_export_that_makes_it() {
        let function = quote! {
            fn label(item: u32, cx: &Context<Config>, model: &Model) -> Result<String, Error> { todo!() }
        };
        let line = "{\"abi\":1,\"name\":\"label\",\"kind\":\"map\",\"doc\":\"\",\"input\":\"u32\",\"output\":\"String\",\
                    \"state\":\"Model\"}\n";
        let (length, bytes) = (line.len(), Literal::byte_string(line.as_bytes()));
        let expected = quote! {
            #[allow(
                clippy::needless_pass_by_value,
                clippy::ptr_arg,
                clippy::trivially_copy_pass_by_ref,
                clippy::unnecessary_wraps,
            )]
            #function

            const _: () = {
                ::std::thread_local! {
                    static __PCLUSTER_STATE: ::pcluster_sdk::rt::State<Model> =
                        const { ::pcluster_sdk::rt::State::new(|| ::pcluster_sdk::rt::make::<Model, _, _>(Model::load)) };
                }

                #[cfg_attr(target_arch = "wasm32", unsafe(export_name = "pcluster_init:label"))]
                #[allow(dead_code)]
                extern "C" fn __pcluster_init() -> i32 {
                    ::pcluster_sdk::rt::initialize(&__PCLUSTER_STATE)
                }
                #[allow(dead_code)]
                fn __pcluster_handle(item: &[u8]) -> i32 {
                    ::pcluster_sdk::rt::run_with_context::<u32, _, _>(
                        item,
                        "u32",
                        |__item, __context| ::pcluster_sdk::rt::with_state(
                            &__PCLUSTER_STATE,
                            |__state| ::pcluster_sdk::rt::give(label(__item, __context, __state)?)
                        )
                    )
                }

                #[cfg_attr(target_arch = "wasm32", unsafe(export_name = "pcluster_task:label"))]
                #[allow(dead_code)]
                unsafe extern "C" fn __pcluster_task(pointer: *mut u8, length: usize) -> i32 {
                    unsafe { ::pcluster_sdk::rt::one(pointer, length, __pcluster_handle) }
                }

                #[cfg_attr(target_arch = "wasm32", unsafe(export_name = "pcluster_each:label"))]
                #[allow(dead_code)]
                extern "C" fn __pcluster_each() -> i32 {
                    ::pcluster_sdk::rt::each(__pcluster_handle)
                }

                #[cfg(target_arch = "wasm32")]
                #[used]
                #[unsafe(link_section = "pcluster")]
                static __PCLUSTER_DESCRIPTION: [u8; #length] = *#bytes;
                ::pcluster_sdk::__schema! { "pcluster_schema:label", [], u32, String }
            };
        };
        assert_eq!(expand(quote!(init = Model::load), &function).to_string(), expected.to_string());
    }

    #[test]
    fn the_context_of_a_task_with_a_state_is_read_only_if_asked_for() {
        let expanded = expanded("generator, init = load", "fn f(item: u8, model: &mut Model) -> Vec<u8> { todo!() }");
        assert!(expanded.contains("rt :: run :: < u8 , _ >"), "{expanded}");
        assert!(
            expanded.contains("| __state | :: pcluster_sdk :: rt :: give_all (f (__item , __state))"),
            "{expanded}"
        );
    }

    #[test]
    fn each_kind_has_its_way_out() {
        for (arguments, returned, give) in [
            ("", "-> Option<u8>", "give_some (f (__item))"),
            ("", "-> Result<Option<u8>, Error>", "give_some (f (__item) ?)"),
            ("", "-> Result<u8, Error>", "give (f (__item) ?)"),
            ("", "", "give_none (f (__item))"),
            ("generator", "-> Vec<u8>", "give_all (f (__item))"),
            ("generator", "-> Vec<Result<u8, Error>>", "give_results (f (__item))"),
        ] {
            let expanded = expanded(arguments, &format!("fn f(item: u8) {returned} {{ todo!() }}"));
            assert!(expanded.contains(give), "{expanded}");
        }
    }

    #[test]
    fn the_context_is_read_only_if_asked_for() {
        let expanded = expanded("", "fn f(item: u8, cx: &Context<Config>) -> u8 { item }");
        assert!(expanded.contains("rt :: run_with_context :: < u8 , _ , _ >"), "{expanded}");
        assert!(expanded.contains("f (__item , __context)"), "{expanded}");
    }

    #[test]
    fn the_attribute_renames_the_export_but_not_the_function() {
        let expanded = expanded("name = \"other\"", "fn f(item: u8) -> u8 { item }");
        assert!(expanded.contains("\"pcluster_task:other\""), "{expanded}");
        assert!(expanded.contains("give (f (__item))"), "{expanded}");
    }

    #[test]
    fn schemas_are_told_of_types_that_can_be_named() {
        let tell = |arguments: &str, item: &str| {
            let expanded = expanded(arguments, item);
            expanded.split_once("__schema ! {").map(|(_, rest)| rest.split('}').next().unwrap_or("").trim().to_owned())
        };
        let of = |text: &str| Some(format!("\"pcluster_schema:f\" , {text}"));
        assert_eq!(tell("", "fn f(item: u8) {}"), of("[] , u8"));
        assert_eq!(tell("", "fn f(item: u8) -> Option<Vec<u8>> {}"), of("[] , u8 , Vec < u8 >"));
        assert_eq!(tell("generator", "fn f(item: u8) -> impl Iterator<Item = u16> {}"), of("[] , u8 , u16"));
        assert_eq!(tell("", "fn f(item: u8) -> Vec<impl Serialize> {}"), of("[] , u8"));
        let borrowed = "fn f<'a>(item: u8, cx: &'a Context) -> &'a str {}";
        assert_eq!(tell("", borrowed), of("[< 'a >] , u8 , & 'a str"));
        assert_eq!(tell("schema = false", "fn f(item: u8) {}"), None);
    }

    #[test]
    fn all_mistakes_are_reported_and_the_function_stays() {
        let expanded = expanded("nothing", "async fn f() -> impl Iterator<Item = u8> {}");
        assert_eq!(expanded.matches("compile_error").count(), 4, "{expanded}");
        assert!(expanded.contains("async fn f"), "{expanded}");
    }

    #[test]
    fn only_a_function_can_be_a_task() {
        let expanded = expanded("", "struct Task;");
        assert!(
            expanded.contains("compile_error") && expanded.contains("`#[task]` belongs on a function"),
            "{expanded}"
        );
    }
}
