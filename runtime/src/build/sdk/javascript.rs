//! How Node.js finds the package for JavaScript, which is installed by npm or named by a setting.

use std::io;
use std::path::{Path, PathBuf};

use super::make_link;

/// The package in a folder.
const PACKAGE: &str = "node_modules/pcluster";
/// The script of the package that makes a plugin.
pub(in crate::build) const BUILD: &str = "src/build.mjs";

/// Returns the package in a folder or in the nearest one above, if `is_ours` holds of it.
pub(in crate::build) fn nearest(folder: &Path, is_ours: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut found = folder.ancestors().map(|folder| folder.join(PACKAGE));
    found.find(|package| package.join(BUILD).is_file() && is_ours(package))
}

/// Links the package into a project that finds none, so that its tests run by hand.
pub(crate) fn lead(project: &Path, package: &Path) -> io::Result<()> {
    let project = std::path::absolute(project)?;
    let link = project.join(PACKAGE);
    if nearest(&project, |_| true).is_some() || link.is_dir() {
        return Ok(());
    }
    make_link(&link, package)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_nearest_package_is_found_and_linked_only_where_there_is_none() {
        let at = tempfile::tempdir().expect("a folder");
        let (project, other) = (at.path().join("chain/plugin"), at.path().join("other"));
        fs::create_dir_all(&project).expect("made");
        assert_eq!(nearest(&project, |_| true), None);
        for place in [&other, &at.path().join(PACKAGE)] {
            fs::create_dir_all(place.join("src")).expect("made");
            fs::write(place.join(BUILD), "").expect("written");
        }
        let above = at.path().join(PACKAGE);
        assert_eq!(nearest(&project, |_| true), Some(above.clone()));
        assert_eq!(nearest(&project, |_| false), None);
        lead(&project, &other).expect("nothing to do");
        assert!(!project.join("node_modules").exists());
        fs::remove_dir_all(above).expect("removed");
        for _ in 0..2 {
            lead(&project, &other).expect("linked");
            assert_eq!(fs::read_link(project.join(PACKAGE)).expect("a link"), other);
        }
    }
}
