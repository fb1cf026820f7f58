//! A task in Rust that the benchmark of the engine measures.

use pcluster_sdk::task;
use serde::{Deserialize, Serialize};

/// The item.
#[derive(Deserialize)]
struct Order {
    id: i64,
    customer: String,
    articles: Vec<String>,
    total: f64,
    paid: bool,
    note: String,
    #[serde(rename = "zone")]
    _zone: String,
}

/// What becomes of it.
#[derive(Serialize)]
struct Summary {
    id: i64,
    customer: String,
    articles: usize,
    total: f64,
    paid: bool,
    note: String,
}

/// Reads all of a record, and writes six fields.
#[task]
fn record(order: Order) -> Summary {
    Summary {
        id: order.id + 1,
        customer: order.customer.to_uppercase(),
        articles: order.articles.len(),
        total: order.total * 2.0,
        paid: !order.paid,
        note: order.note,
    }
}
