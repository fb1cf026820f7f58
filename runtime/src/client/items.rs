//! A stream of values that a client reads.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{self, BoxStream, Stream, StreamExt};

use super::ClientError;

/// A stream of values that a client reads, in order.
///
/// [`TryStreamExt::try_next`](futures_util::TryStreamExt::try_next) waits for the next value. It can be dropped at any time
/// without losing a value. The stream ends after an error.
#[must_use = "a stream does nothing unless it is polled"]
pub struct Items<T>(BoxStream<'static, Result<T, ClientError>>);

impl<T: Send + 'static> Items<T> {
    /// Creates a stream. `next` takes the state, and returns the next value and the new state, or `None` at the end.
    pub(super) fn of<S, N, F>(state: S, next: N) -> Self
    where
        S: Send + 'static,
        N: FnMut(S) -> F + Send + 'static,
        F: Future<Output = Result<Option<(T, S)>, ClientError>> + Send + 'static,
    {
        Self(stream::try_unfold(state, next).boxed())
    }
}

impl<T> Stream for Items<T> {
    type Item = Result<T, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}
