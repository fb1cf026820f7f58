//! Makes references of large outputs.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};

use super::LargeItems;
use crate::broker::large::Content;
use crate::frame::large::{Form, Hasher, Reference};
use crate::run::failure::{Failure, FailureKind};
use crate::run::item::{ItemBytes, ItemFile};
use crate::run::output::{FrameOutputs, Outputs};

/// Outputs of one item that are stored at once.
const AT_ONCE: usize = 4;

/// What large outputs are made of: the frame at a place, and the item of it that they come from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The place of the frame in the work stream.
    pub(crate) sequence: u64,
    /// The large item of the frame. `None` if its bytes are in the message.
    pub(crate) input: Option<Reference>,
    /// The most bytes of an output that stays in a message.
    pub(crate) most: usize,
    /// How long it waits for room.
    pub(crate) waits: Waits,
}

/// How long an output waits for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Not at all. The frame has other items.
    No,
    /// A while. Nothing of the item is stored yet, so it can run again at another time.
    AWhile,
    /// As long as it takes. Outputs of the item have gone on.
    On,
}

/// A failure to keep an output.
#[derive(Debug)]
pub(crate) enum Unkept {
    /// Its item fails.
    Failed(Failure),
    /// The store has no room. The item is requeued, and no attempt is counted.
    NoRoom(Failure),
}

/// An output that can go into a message.
enum Kept {
    Whole(Bytes),
    Reference(Reference),
}

impl LargeItems {
    /// Returns outputs whose large items are references.
    ///
    /// # Errors
    ///
    /// The first output that cannot be stored.
    pub(crate) async fn keep_outputs(&self, outputs: Outputs, origin: Origin) -> Result<Outputs, Unkept> {
        let (is_reference, topics) = (positions(&outputs), outputs.topics().to_vec());
        let (mut kept, mut topics) = (Outputs::default(), topics.into_iter().peekable());
        let all = self.keep_all(outputs.into_items(), &is_reference, |_| origin.clone()).await;
        for (number, one) in all.into_iter().enumerate() {
            match one? {
                Kept::Whole(bytes) => kept.push(&bytes),
                Kept::Reference(reference) => kept.push_large(&reference),
            }
            if let Some((_, topic)) = topics.next_if(|(each, _)| *each == number) {
                kept.send_last_to(topic);
            }
        }
        Ok(kept)
    }

    /// Makes references of the large outputs of ended items.
    ///
    /// Returns the items whose outputs are not kept. Theirs are dropped.
    pub(crate) async fn keep_frame(
        &self,
        outputs: &mut FrameOutputs,
        origin: impl Fn(usize) -> Origin,
    ) -> Vec<(usize, Unkept)> {
        let ended: Vec<(usize, usize)> =
            outputs.items().map(|(position, slice)| (position, slice.given().count())).collect();
        let mut topics = outputs.topics().into_iter().peekable();
        let all = std::mem::take(outputs).into_outputs();
        let is_reference = positions(&all);
        let roots: Vec<usize> =
            ended.iter().flat_map(|(position, count)| std::iter::repeat_n(*position, *count)).collect();
        let kept = self.keep_all(all.into_items(), &is_reference, |number| origin(roots[number])).await;
        let (mut kept, mut failed) = (kept.into_iter().enumerate(), Vec::new());
        for (position, count) in ended {
            let mut unkept = None;
            for (number, one) in kept.by_ref().take(count) {
                let topic = topics.next_if(|(each, _)| *each == number);
                match one {
                    Ok(Kept::Whole(bytes)) => outputs.push(&bytes),
                    Ok(Kept::Reference(reference)) => outputs.push_large(&reference),
                    Err(error) => {
                        unkept = unkept.or(Some(error));
                        continue;
                    }
                }
                if let Some((_, topic)) = topic {
                    outputs.send_last_to(topic);
                }
            }
            match unkept {
                Some(unkept) => {
                    outputs.drop_open();
                    failed.push((position, unkept));
                }
                None => outputs.end(position),
            }
        }
        failed
    }

    async fn keep_all(
        &self,
        items: Vec<ItemBytes>,
        is_reference: &[bool],
        origin: impl Fn(usize) -> Origin,
    ) -> Vec<Result<Kept, Unkept>> {
        let keeping = items.into_iter().zip(is_reference).enumerate();
        let keeping: Vec<BoxFuture<'_, _>> = keeping
            .map(|(number, (item, is_reference))| self.keep_one(item, *is_reference, origin(number)).boxed())
            .collect();
        stream::iter(keeping).buffered(AT_ONCE).collect().await
    }

    async fn keep_one(&self, item: ItemBytes, is_reference: bool, origin: Origin) -> Result<Kept, Unkept> {
        match item {
            ItemBytes::Whole(bytes) if is_reference => Ok(match Reference::parse(&bytes) {
                Ok(reference) => Kept::Reference(reference),
                Err(_) => Kept::Whole(bytes),
            }),
            ItemBytes::Whole(bytes) if bytes.len() <= origin.most => Ok(Kept::Whole(bytes)),
            ItemBytes::Whole(bytes) => self.keep_bytes(bytes, &origin).await,
            ItemBytes::File(file) => self.keep_file(file, &origin).await,
        }
    }

    async fn keep_bytes(&self, bytes: Bytes, origin: &Origin) -> Result<Kept, Unkept> {
        let (form, content) = Form::of(&bytes);
        let content = bytes.slice_ref(content);
        if let Some(input) = &origin.input
            && (input.size, input.form) == (content.len() as u64, form)
            && digest(content.clone()).await? == input.digest
        {
            return Ok(Kept::Reference(input.clone()));
        }
        self.upload(origin, Content::Bytes(content), form).await.map(Kept::Reference)
    }

    async fn keep_file(&self, file: ItemFile, origin: &Origin) -> Result<Kept, Unkept> {
        if file.item_size() <= origin.most as u64 {
            let read = tokio::task::spawn_blocking(move || file.read()).await.map_err(std::io::Error::other).flatten();
            return read.map(Kept::Whole).map_err(|error| unread(&error).into());
        }
        if let Some(input) = origin.input.as_ref().filter(|input| file.is_same(input)) {
            return Ok(Kept::Reference(input.clone()));
        }
        let content = Content::Hashed { file: file.file(), size: file.size(), digest: file.digest() };
        self.upload(origin, content, file.form()).await.map(Kept::Reference)
    }
}

impl From<Failure> for Unkept {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Returns for each output whether it is a reference.
fn positions(outputs: &Outputs) -> Vec<bool> {
    let mut is_reference = vec![false; outputs.len()];
    for number in outputs.all().large() {
        is_reference[number] = true;
    }
    is_reference
}

async fn digest(content: Bytes) -> Result<String, Failure> {
    let hashed = tokio::task::spawn_blocking(move || {
        let mut hasher = Hasher::default();
        hasher.update(&content);
        hasher.digest()
    });
    hashed.await.map_err(|error| unread(&std::io::Error::other(error)))
}

fn unread(error: &std::io::Error) -> Failure {
    Failure::transient(FailureKind::Output, format!("a large output cannot be read: {error}"))
}
