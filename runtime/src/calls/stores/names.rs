//! The names of one page, picked from names in any order.

use std::collections::BTreeMap;

use super::Page;

/// The names of a page so far. It never holds more than the page and one name.
#[derive(Debug)]
pub(crate) struct PageNames<'a, T> {
    page: &'a Page,
    prefix: &'a str,
    names: BTreeMap<String, T>,
    /// The least name that the page has no room for.
    cut: Option<String>,
}

impl<'a, T> PageNames<'a, T> {
    /// Creates a page without names.
    pub(crate) fn new(page: &'a Page, prefix: &'a str) -> Self {
        Self { page, prefix, names: BTreeMap::new(), cut: None }
    }

    /// Adds a name, or replaces its value, if it belongs to the page.
    pub(crate) fn add(&mut self, name: &str, value: T) {
        let is_after = self.page.after.is_empty() || name > self.page.after.as_str();
        if !is_after || !name.starts_with(self.prefix) || self.cut.as_deref().is_some_and(|cut| name >= cut) {
            return;
        }
        self.names.insert(name.to_owned(), value);
        if self.names.len() > self.page.limit {
            self.cut = self.names.pop_last().map(|(name, _)| name);
        }
    }

    /// Removes a name that was deleted meanwhile.
    pub(crate) fn remove(&mut self, name: &str) {
        self.names.remove(name);
    }

    /// Returns the names in the order of their bytes, and `true` if more follow.
    ///
    /// The page ends before the first name that exceeds the room. Returns the bytes of that name if it is the first of all.
    pub(crate) fn finish(self, room: u64, size: impl Fn(&str, &T) -> usize) -> Result<(Vec<(String, T)>, bool), usize> {
        let (mut left, mut more) = (room, self.cut.is_some());
        let mut page = Vec::with_capacity(self.names.len());
        for (name, value) in self.names {
            let size = size(&name, &value);
            match left.checked_sub(size as u64) {
                Some(rest) => left = rest,
                None if page.is_empty() => return Err(size),
                None => {
                    more = true;
                    break;
                }
            }
            page.push((name, value));
        }
        Ok((page, more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(after: &str, limit: usize, prefix: &str, room: u64, all: &[&str]) -> (String, bool) {
        let page = Page { after: after.to_owned(), limit };
        let mut names = PageNames::new(&page, prefix);
        for name in all {
            match name.strip_prefix('-') {
                Some(name) => names.remove(name),
                None => names.add(name, ()),
            }
        }
        let (page, more) = names.finish(room, |name, ()| name.len()).expect("room");
        let page: Vec<String> = page.into_iter().map(|(name, ())| name).collect();
        (page.join(" "), more)
    }

    #[test]
    fn a_page_has_the_next_names_in_order() {
        type Row = (&'static str, usize, &'static str, &'static [&'static str], &'static str, bool);
        let table: [Row; 9] = [
            ("", 9, "", &["b", "a", "c"], "a b c", false),
            ("", 2, "", &["b", "a", "c"], "a b", true),
            ("", 3, "", &["b", "a", "c"], "a b c", false),
            ("a", 2, "", &["b", "a", "c"], "b c", false),
            ("c", 2, "", &["b", "a", "c"], "", false),
            ("", 9, "b", &["b", "a", "bc", "c"], "b bc", false),
            ("", 9, "", &["B", "a", "-", "_"], "B _ a", false),
            ("", 9, "", &["a", "b", "a", "-b"], "a", false),
            // What had no room is not forgotten when a name goes.
            ("", 1, "", &["a", "c", "-a", "d", "b"], "b", true),
        ];
        for (after, limit, prefix, all, page, more) in table {
            assert_eq!(names(after, limit, prefix, 99, all), (page.to_owned(), more), "{after:?} {limit} {all:?}");
        }
    }

    #[test]
    fn a_page_ends_where_its_room_does() {
        assert_eq!(names("", 9, "", 4, &["aa", "bb", "c"]), ("aa bb".to_owned(), true));
        assert_eq!(names("", 9, "", 5, &["aa", "bb", "c"]), ("aa bb c".to_owned(), false));
        let page = Page { after: String::new(), limit: 9 };
        let mut one = PageNames::new(&page, "");
        one.add("aaa", ());
        assert_eq!(one.finish(2, |name, ()| name.len()).map(|_| ()), Err(3));
    }
}
