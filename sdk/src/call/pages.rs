//! Names in pages.

use std::vec;

use super::{CallError, call};
use crate::cbor::fields::{Field, Writer};

/// Names that the node lists in pages, in the order of their bytes.
///
/// Each page is one call, made when the page before is used up. Names that come or go meanwhile may be there or not. The iterator
/// ends after an error.
#[derive(Debug)]
pub struct Pages<T> {
    listing: Listing<T>,
    /// The name of the bucket or store.
    place: String,
    prefix: String,
    page: vec::IntoIter<T>,
    /// The last name of the page before. `None` before the first.
    after: Option<String>,
    more: bool,
}

/// How one kind of names is listed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listing<T> {
    /// The call that returns a page.
    pub(crate) call: &'static str,
    /// The key of the bucket or store in the request.
    pub(crate) place: &'static str,
    /// The key of the list in the response.
    pub(crate) list: &'static str,
    /// Reads one value of the list.
    pub(crate) read: fn(&Field<'_>) -> Option<T>,
    /// Returns the name in it.
    pub(crate) name: fn(&T) -> &str,
}

impl<T> Pages<T> {
    /// Creates the iterator before its first call.
    pub(crate) fn new(listing: Listing<T>, place: &str, prefix: &str) -> Self {
        let (place, prefix) = (place.to_owned(), prefix.to_owned());
        Self { listing, place, prefix, page: Vec::new().into_iter(), after: None, more: true }
    }

    /// Reads the next page.
    fn turn(&mut self) -> Result<(), CallError> {
        let mut request = Writer::new();
        request.text(self.listing.place, &self.place);
        if !self.prefix.is_empty() {
            request.text("prefix", &self.prefix);
        }
        if let Some(after) = &self.after {
            request.text("after", after);
        }
        let answer = call(self.listing.call, request)?;
        let page: Vec<T> = answer.list(self.listing.list)?.filter_map(|value| (self.listing.read)(&value)).collect();
        self.after = page.last().map(|last| (self.listing.name)(last).to_owned());
        // A page without names cannot say where the next begins.
        self.more = answer.flag("more") && self.after.is_some();
        self.page = page.into_iter();
        Ok(())
    }
}

impl<T> Iterator for Pages<T> {
    type Item = Result<T, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(value) = self.page.next() {
                return Some(Ok(value));
            }
            if !self.more {
                return None;
            }
            if let Err(error) = self.turn() {
                self.more = false;
                return Some(Err(error));
            }
        }
    }
}
