//! Where results go: in the order of the items that they come of, or as they come.
//!
//! In order, each frame has a channel of its own, and whoever reads the results reads the channel of a frame to its end before he
//! reads the next. A frame whose turn has not come waits once its channel is full. It holds nothing meanwhile that the frame whose
//! turn it is could need.

use tokio::sync::mpsc::{Receiver, Sender, channel};

/// How many outputs of a frame may wait for their turn.
const ROOM: usize = 4;

/// Where the results of a frame go.
pub(crate) enum Outlet<O> {
    /// Into its place in the order.
    Ordered(Sender<Piece<O>>),
    /// To the reader.
    Free(Sender<Piece<O>>),
}

/// What an outlet passes on.
pub(crate) enum Piece<O> {
    /// Results.
    Output(O),
    /// The outlet of a frame that comes next.
    Branch(Receiver<Piece<O>>),
}

/// The results of a run, one after the other.
pub(crate) struct Results<O> {
    /// The outlets that are read now, the innermost last.
    open: Vec<Receiver<Piece<O>>>,
}

/// Nobody reads the results any longer.
#[derive(Debug)]
pub(crate) struct Gone;

impl<O> Outlet<O> {
    /// Creates an outlet and its reader.
    pub(crate) fn new(is_ordered: bool) -> (Self, Results<O>) {
        let (sender, receiver) = channel(ROOM);
        let outlet = if is_ordered { Self::Ordered(sender) } else { Self::Free(sender) };
        (outlet, Results { open: vec![receiver] })
    }

    /// Passes results on. Waits until there is room.
    pub(crate) async fn give(&self, output: O) -> Result<(), Gone> {
        let (Self::Ordered(sender) | Self::Free(sender)) = self;
        sender.send(Piece::Output(output)).await.map_err(|_| Gone)
    }

    /// Returns the outlet of the frame whose results come next. Waits until there is room.
    pub(crate) async fn branch(&self) -> Result<Self, Gone> {
        match self {
            Self::Free(sender) => Ok(Self::Free(sender.clone())),
            Self::Ordered(sender) => {
                let (inner, receiver) = channel(ROOM);
                sender.send(Piece::Branch(receiver)).await.map_err(|_| Gone)?;
                Ok(Self::Ordered(inner))
            }
        }
    }
}

impl<O> Results<O> {
    /// Returns the next results. `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<O> {
        while let Some(outlet) = self.open.last_mut() {
            match outlet.recv().await {
                Some(Piece::Output(output)) => return Some(output),
                Some(Piece::Branch(inner)) => self.open.push(inner),
                None => drop(self.open.pop()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn results_come_in_the_order_of_their_branches_however_late_these_give() {
        let (outlet, mut results) = Outlet::new(true);
        let (first, second) = (outlet.branch().await.expect("room"), outlet.branch().await.expect("room"));
        let inner = first.branch().await.expect("room");
        second.give(3).await.expect("room");
        first.give(2).await.expect("room");
        drop((first, second, outlet));
        inner.give(1).await.expect("room");
        drop(inner);
        let mut all = Vec::new();
        while let Some(result) = results.next().await {
            all.push(result);
        }
        assert_eq!(all, [1, 2, 3]);
    }

    #[tokio::test]
    async fn an_outlet_without_a_reader_says_so() {
        for is_ordered in [true, false] {
            let (outlet, results) = Outlet::new(is_ordered);
            drop(results);
            assert!(outlet.give(()).await.is_err());
        }
    }
}
