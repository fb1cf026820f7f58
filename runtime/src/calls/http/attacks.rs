//! Attacks on HTTP calls, each against a real server.
