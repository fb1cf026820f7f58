//! The three typical stages in the engine alone: no command, no queue and no text, only tasks one after the other on each thread.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use ciborium::Value;

use crate::drain::{Load, Sample};
use crate::engine::{Tried, loaded};
use crate::relays::PACK;
use crate::usage::{Machine, Used};
use crate::words::STAGES;

/// Runs all items on as many threads as the machine has processors.
pub fn sample(plugin: &Path, load: &Load, is_reused: bool) -> Sample {
    let plugin = loaded(plugin);
    let threads = std::thread::available_parallelism().unwrap().get();
    let own: Vec<[Tried; STAGES.len()]> = (0..threads)
        .map(|_| {
            STAGES.map(|task| {
                let tried = Tried::of(&plugin, task, &Value::Null);
                if is_reused { tried.reused() } else { tried }
            })
        })
        .collect();
    let frames: Vec<&[Bytes]> = load.items.chunks(PACK).collect();
    let (next, given) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (machine, before, started) = (Machine::now(), Used::by(&[std::process::id()]), Instant::now());
    std::thread::scope(|scope| {
        for stages in own {
            let (frames, next, given) = (&frames, &next, &given);
            scope.spawn(move || {
                while let Some(frame) = frames.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let results = stages.iter().fold(frame.to_vec(), |items, stage| stage.outputs(items));
                    given.fetch_add(results.len(), Ordering::Relaxed);
                }
            });
        }
    });
    let (seconds, used) = (started.elapsed().as_secs_f64(), Used::by(&[std::process::id()]).since(before));
    // The first stage makes two of an item, and the last keeps one of them.
    assert_eq!(given.into_inner(), load.items.len(), "the stages lose items");
    Sample {
        items: load.items.len() as f64,
        bytes: load.bytes() as f64,
        seconds,
        server: Used::default(),
        worker: used,
        foreign: Machine::now().foreign_since(machine, used.seconds),
    }
}
