//! The export by which a plugin tells the schemas of a task, which `#[task]` writes with each.

/// Writes the export, with the feature `schema` only. The types come with the lifetimes of the task's function.
#[cfg(feature = "schema")]
#[doc(hidden)]
#[macro_export]
macro_rules! __schema {
    ($export:literal, [$($lifetimes:tt)*], $input:ty $(, $output:ty)?) => {
        #[cfg_attr(target_arch = "wasm32", unsafe(export_name = $export))]
        #[allow(dead_code)]
        extern "C" fn __pcluster_schema() -> u64 {
            #[allow(clippy::extra_unused_lifetimes, clippy::needless_borrow, clippy::needless_lifetimes)]
            fn told $($lifetimes)* () -> u64 {
                #[allow(unused_imports)]
                use $crate::rt::schema::{OfAny as _, OfSchema as _};
                $crate::rt::schema::begin();
                let input = (&$crate::rt::schema::Of::<$input>::new()).input();
                #[allow(unused_variables)]
                let output = ::core::option::Option::<$crate::schemars::Schema>::None;
                $(let output = (&$crate::rt::schema::Of::<$output>::new()).output();)?
                $crate::rt::schema::tell(input, output)
            }
            told()
        }
    };
}

/// Writes no export.
#[cfg(not(feature = "schema"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __schema {
    ($($of:tt)*) => {};
}
