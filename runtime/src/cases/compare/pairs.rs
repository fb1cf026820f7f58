//! Pairs what has no order.

/// The most values that are paired by trying all of them.
const MOST: usize = 2_000;

/// Pairs as many of `left` values as can be with one each of `right`. Returns for each of the left its partner.
pub(super) fn matching(left: usize, right: usize, mut fits: impl FnMut(usize, usize) -> bool) -> Vec<Option<usize>> {
    let mut partners = vec![None; left];
    let mut takers: Vec<Option<usize>> = vec![None; right];
    if left > MOST || right > MOST {
        // Too many to try all: the first that fits is taken.
        for (at, partner) in partners.iter_mut().enumerate() {
            let near = (at.saturating_sub(MOST)..right.min(at + MOST))
                .find(|other| takers[*other].is_none() && fits(at, *other));
            if let Some(other) = near {
                takers[other] = Some(at);
                *partner = Some(other);
            }
        }
        return partners;
    }
    let edges: Vec<Vec<usize>> = (0..left).map(|at| (0..right).filter(|other| fits(at, *other)).collect()).collect();
    for at in 0..left {
        augment(at, &edges, &mut partners, &mut takers);
    }
    partners
}

/// Finds a partner for one more, if the others can make room (Kuhn's algorithm, with a stack of its own).
fn augment(start: usize, edges: &[Vec<usize>], partners: &mut [Option<usize>], takers: &mut [Option<usize>]) {
    let mut from: Vec<Option<usize>> = vec![None; takers.len()];
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for &other in &edges[at] {
            if from[other].is_some() {
                continue;
            }
            from[other] = Some(at);
            match takers[other] {
                Some(taker) => queue.push_back(taker),
                None => return turn(other, start, &from, partners, takers),
            }
        }
    }
}

/// Gives each on the way back to the start the partner that was found for it.
fn turn(
    mut other: usize,
    start: usize,
    from: &[Option<usize>],
    partners: &mut [Option<usize>],
    takers: &mut [Option<usize>],
) {
    while let Some(at) = from[other] {
        let before = partners[at].replace(other);
        takers[other] = Some(at);
        match before {
            Some(before) if at != start => other = before,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_can_be_are_paired() {
        // The first takes what the second needs, unless it makes room.
        let fits = |at: usize, other: usize| [(0, 0), (0, 1), (1, 0), (2, 1), (2, 2)].contains(&(at, other));
        assert_eq!(matching(3, 3, fits), [Some(1), Some(0), Some(2)]);
        assert_eq!(matching(2, 1, |_, _| true), [Some(0), None]);
        assert_eq!(matching(0, 3, |_, _| true), []);
        let many = matching(3_000, 3_000, |at, other| at == other);
        assert!(many.iter().enumerate().all(|(at, partner)| *partner == Some(at)));
    }
}
