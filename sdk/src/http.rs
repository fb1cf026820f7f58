//! Requests to HTTP servers that the stage is granted.
//!
//! ```
//! use pcluster_sdk::{Error, Secret, http, task};
//!
//! /// Looks up the population of a city.
//! #[task(calls(http))]
//! fn population(city: String) -> Result<String, Error> {
//!     let response = http::get("https://api.example.com/population")
//!         .header("X-City", city)
//!         .header("Authorization", Secret("api_token").bearer())
//!         .send()?
//!         .error_for_status()?;
//!     Ok(response.text()?.to_owned())
//! }
//! # use pcluster_sdk::testing::World;
//! # let answer = http::Response::for_test(200, "3600000");
//! # let world = World::new().http("GET", "https://api.example.com/population", answer);
//! # assert_eq!(world.run(|| population("Berlin".to_owned())).unwrap(), "3600000");
//! # assert_eq!(world.requests()[0].header("authorization"), Some("Bearer {api_token}"));
//! ```
//!
//! # What may run twice
//!
//! An item may be tried again after its task has sent a request: after a failure, or after the node has ended. A request whose method
//! is not safe (RFC 9110, 9.2.1), such as `POST`, carries `Idempotency-Key`: the same text at each attempt on the item, and on each
//! node, for the same method and URL and the same place among equal requests. An API that honors it acts once.
//! [`idempotency`](Request::idempotency) leaves the key out, and [`idempotency_key`](Request::idempotency_key) sends the author's.

mod header;
mod request;
mod response;

pub use self::header::HeaderValue;
pub use self::request::Request;
pub use self::response::Response;

/// Creates a `GET` request.
pub fn get(url: impl AsRef<str>) -> Request {
    request("GET", url)
}

/// Creates a `HEAD` request.
pub fn head(url: impl AsRef<str>) -> Request {
    request("HEAD", url)
}

/// Creates a `POST` request.
pub fn post(url: impl AsRef<str>) -> Request {
    request("POST", url)
}

/// Creates a `PUT` request.
pub fn put(url: impl AsRef<str>) -> Request {
    request("PUT", url)
}

/// Creates a `PATCH` request.
pub fn patch(url: impl AsRef<str>) -> Request {
    request("PATCH", url)
}

/// Creates a `DELETE` request.
pub fn delete(url: impl AsRef<str>) -> Request {
    request("DELETE", url)
}

/// Creates a request with any method.
pub fn request(method: &str, url: impl AsRef<str>) -> Request {
    Request::new(method, url.as_ref())
}
