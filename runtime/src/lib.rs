//! pcluster
pub mod broker;
pub mod chain;
pub mod cli;
pub mod config;
pub mod engine;
pub mod frame;
pub mod log;
pub mod name;
pub mod node;
pub mod root;
pub mod shutdown;
pub mod subject;
pub mod telemetry;
