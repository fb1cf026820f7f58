//! Puts an instance back to its start, so that its next item finds what it would find in a fresh one.
//!
//! To make and to drop an instance costs more than many items do. A plugin whose image is apart from its code has all of its state
//! in the memory and the globals of the image, as its code can change neither tables nor segments. So an instance is a fresh one
//! again once its globals have their first numbers, and each page that it has written to has what the image has there. `written`
//! finds these pages, and `faults` tells whether there can be others than before. An instance whose memory has grown is dropped,
//! and so is one that has written to many pages.

mod faults;
mod written;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use wasmtime::{Memory, Store, Val};

use super::Engine;
use super::host::Host;
use super::template::{Made, Split};
use crate::lock::lock;

pub(super) use faults::watched;
pub(super) use written::is_supported;

/// The most pages that are put back. A fresh instance costs less than to put back more.
const PAGES_MAX: usize = 512;

/// A page of memory, as it is in an image.
type Page = Arc<[u8]>;

/// The pages that an instance may have written to, by their places in its memory, as they are in its image.
pub(super) struct Own(Vec<(usize, Page)>);

/// What the instances of an image start with, as far as it was needed.
#[derive(Default)]
pub(super) struct Originals {
    first: OnceLock<First>,
    pages: Mutex<HashMap<usize, Page>>,
}

/// What an instance starts with beside its pages.
struct First {
    /// The size of the memory in bytes.
    size: usize,
    globals: Vec<Val>,
}

impl Own {
    /// Returns the number of pages.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Originals {
    /// Returns these pages. `None` if one of them was not read yet.
    fn pages(&self, places: &[usize]) -> Option<Own> {
        let known = lock(&self.pages);
        let pages = places.iter().map(|place| Some((*place, Arc::clone(known.get(place)?))));
        pages.collect::<Option<_>>().map(Own)
    }

    /// Reads these pages in an instance in which nothing has run. Returns all that was asked for. `None` if there is no slot for it.
    async fn read(&self, split: &Split, engine: &Engine, places: &[usize]) -> Option<Own> {
        let _slot = engine.slots.try_take()?;
        let mut store = Store::new(&engine.inner, Host::idle());
        let (image, memory) = split.untouched(&mut store).await?;
        let globals = split.changing().iter();
        let globals =
            globals.map(|export| Some(image.get_module_export(&mut store, export)?.into_global()?.get(&mut store)));
        let globals = globals.collect::<Option<_>>()?;
        let memory = memory.data(&store);
        // Another thread may have been faster, and found the same.
        _ = self.first.set(First { size: memory.len(), globals });
        for place in places {
            let page = memory.get(*place..place.checked_add(written::page_size())?)?;
            lock(&self.pages).entry(*place).or_insert_with(|| page.into());
        }
        self.pages(places)
    }
}

/// Puts the memory and the globals of an instance back to their start. `own` are the pages that it may have written to, `None` if
/// that must be found out. Returns them for the next time. `None` if the instance must be dropped.
pub(super) async fn restore(
    engine: &Engine,
    split: &Split,
    store: &mut Store<Host>,
    (made, memory): (Made, Memory),
    own: Option<Own>,
) -> Option<Own> {
    let originals = &split.originals;
    let own = if let Some(own) = own {
        own
    } else {
        let places = written::written(memory.data(&*store), PAGES_MAX)?;
        match originals.pages(&places).filter(|_| originals.first.get().is_some()) {
            Some(own) => own,
            // Boxed, because it is rare: no item of the stage wrote to one of these pages before.
            None => Box::pin(originals.read(split, engine, &places)).await?,
        }
    };
    let first = originals.first.get()?;
    let data = memory.data_mut(&mut *store);
    if data.len() != first.size {
        return None;
    }
    for (place, page) in &own.0 {
        data.get_mut(*place..place.checked_add(page.len())?)?.copy_from_slice(page);
    }
    for (export, value) in split.changing().iter().zip(&first.globals) {
        made.image.get_module_export(&mut *store, export)?.into_global()?.set(&mut *store, *value).ok()?;
    }
    Some(own)
}

#[cfg(test)]
mod tests;
