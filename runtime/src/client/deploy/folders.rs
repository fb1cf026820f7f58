//! The plugins that a manifest names by the folder of their sources.

use std::path::{Path, PathBuf};

use super::{Package, Source, read};
use crate::chain::{Plugin, Work};
use crate::client::ClientError;

/// A plugin that a manifest names by a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PluginFolder {
    /// The folder as the manifest names it.
    pub(crate) name: String,
    /// Its path.
    pub(crate) path: PathBuf,
}

impl Package {
    /// Returns the folders that stages name as their plugins, each once. Checks the manifest.
    pub(crate) fn plugin_folders(&self) -> Result<Vec<PluginFolder>, ClientError> {
        let base = match &self.manifest {
            Source::File(path) => read::file_of(path).parent().map(Path::to_owned).unwrap_or_default(),
            Source::Manifest(_) => PathBuf::new(),
        };
        let mut folders = Vec::new();
        for stage in self.clone().chain()?.stages {
            let Work::Task { plugin: Plugin::File(file), .. } = stage.work else { continue };
            let folder = PluginFolder {
                name: file.to_string_lossy().into_owned(),
                path: base.join(&file).components().collect(),
            };
            let is_given = self.plugins.contains_key(&folder.name);
            if !is_given && is_folder(&folder) && !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        Ok(folders)
    }
}

/// Returns `true` if a plugin is a folder, or must be one by its name.
fn is_folder(plugin: &PluginFolder) -> bool {
    plugin.name.ends_with('/') || plugin.path.is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_folder_is_named_once_and_files_are_not() {
        let at = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(at.path().join("a b")).expect("made");
        let plugins = ["a b", "c.wasm", "a b", "none/", &format!("sha256:{}", "0".repeat(64))];
        let stages: String = (0..)
            .zip(plugins)
            .map(|(number, plugin)| format!("[[stage]]\nname = \"s{number}\"\nplugin = \"{plugin}\"\n"))
            .collect();
        let manifest = at.path().join("chain.toml");
        std::fs::write(&manifest, format!("name = \"a\"\nversion = \"1\"\n{stages}")).expect("written");
        for named in [manifest.as_path(), at.path()] {
            let folders = Package::file(named).plugin_folders().expect("valid");
            let names: Vec<&str> = folders.iter().map(|folder| &*folder.name).collect();
            assert_eq!(names, ["a b", "none/"]);
            assert_eq!(folders[0].path, at.path().join("a b"));
        }
        let given = Package::file(&manifest).with_plugin("a b", *b"");
        assert_eq!(given.plugin_folders().expect("valid").len(), 1);
    }
}
