//! Plugins and states of which the cache has all that their instances start from. A node that starts again fetches, compiles
//! and runs nothing for them.
//!
//! Of a plugin the cache has its code, its first image, and its skeleton, which says what it exports and imports. Of a state it
//! has the image, and only if the state follows from what its name says: an initializer that has asked for time or chance, has
//! called anything, or has printed, runs again at each start.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::Module;

use super::inspect::inspect;
use super::parts::{Outline, Parts};
use super::snapshot::Snapshots;
use super::task::Task;
use super::template::{Code, Template};
use super::{Engine, Plugin};
use crate::name::Digest;

/// What the files depend on beside the engine: another program may read plugins otherwise, or write other images.
const FORM: &str = concat!("1 ", env!("CARGO_PKG_VERSION"));
/// The length of a digest as text.
const DIGEST: usize = 64;

/// Something is not in the cache, or of no use.
struct Missing;

/// The state of a stage's task in the cache.
pub(super) struct StateName {
    /// The stage. The cache keeps the newest state of each.
    key: Digest,
    /// All that the state follows from.
    content: Digest,
}

impl StateName {
    /// Returns the name of the state that this task makes in a place.
    pub(super) fn of(plugin: &Plugin, name: &str, place: &str, task: &Task) -> Self {
        let (context, memory) = (task.static_context.context(None, "", 0), task.limits.memory.to_le_bytes());
        let parts: [&[u8]; 5] =
            [FORM.as_bytes(), plugin.digest.as_hex().as_bytes(), name.as_bytes(), &context, &memory];
        let variables = task.static_context.environment.iter().map(String::as_bytes);
        let mut all = Vec::new();
        for part in parts.into_iter().chain(variables) {
            all.extend_from_slice(&(part.len() as u64).to_le_bytes());
            all.extend_from_slice(part);
        }
        Self { key: key("state", place), content: Digest::of(&all) }
    }
}

/// Returns the name of a file about this.
fn key(what: &str, of: &str) -> Digest {
    Digest::of([FORM, what, of].join(":").as_bytes())
}

impl Engine {
    /// Returns a plugin, if the cache has all of it. Blocks the thread.
    pub fn kept(&self, digest: &Digest) -> Option<Plugin> {
        let cache = self.cache.as_ref()?;
        let kept = Bytes::from(cache.bytes(&key("plugin", digest.as_hex()), digest)?);
        let code: Digest = std::str::from_utf8(kept.get(..DIGEST)?).ok()?.parse().ok()?;
        let skeleton = kept.slice(DIGEST..);
        let inspection = inspect(&skeleton).ok()?;
        let parts = Parts::read(&skeleton).ok()?;
        let template = self.templates.get_or_make(digest, || {
            let module = self.codes.get_or_make(&code, || cache.code(&self.inner, &code, &code).ok_or(Missing))?;
            let image = cache.image(&self.inner, &key("image", digest.as_hex()), digest).ok_or(Missing)?;
            self.split(&parts.outline, &image, parts.code_of(code.clone(), module)).map_err(|_| Missing)
        });
        Some(Plugin {
            engine: self.clone(),
            template: template.ok()?,
            digest: digest.clone(),
            snapshots: Snapshots::Split(Arc::new(parts.outline)),
            inspection: Arc::new(inspection),
        })
    }

    /// Keeps a plugin, whose code the cache has already, soon.
    pub(super) fn keep(&self, digest: &Digest, parts: &Parts, code: &Code, image: &Module) {
        let Some(cache) = self.cache.clone() else { return };
        let mut kept = code.digest.as_hex().as_bytes().to_vec();
        kept.extend_from_slice(&parts.skeleton());
        let (digest, image) = (digest.clone(), image.clone());
        self.later.run(move || {
            cache.keep_image(&key("image", digest.as_hex()), &digest, &image);
            cache.keep_bytes(&key("plugin", digest.as_hex()), &digest, &kept);
        });
    }

    /// Returns what instances with this state start from, if the cache has it. Blocks the thread.
    pub(super) fn kept_state(&self, name: &StateName, outline: &Outline, code: &Code) -> Option<Arc<Template>> {
        let image = self.cache.as_ref()?.image(&self.inner, &name.key, &name.content)?;
        self.split(outline, &image, code.clone()).ok().map(Arc::new)
    }

    /// Keeps the image of a state, soon.
    pub(super) fn keep_state(&self, name: StateName, image: &Module) {
        let Some(cache) = self.cache.clone() else { return };
        let image = image.clone();
        self.later.run(move || cache.keep_image(&name.key, &name.content, &image));
    }

    /// Waits until the cache has all that it is to keep. Blocks the thread.
    pub(crate) fn wait_for_cache(&self) {
        self.later.wait();
    }
}
