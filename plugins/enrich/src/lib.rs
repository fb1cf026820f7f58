//! A task that reaches the world: it asks an HTTP API for exchange rates, and keeps them in a KV bucket.
//!
//! `chain.toml` shows what the stage is granted, and the page of authors how to run it.

use pcluster_sdk::{Context, Error, Secret, http, kv, log, task};
use serde::{Deserialize, Serialize};

/// The `config` of `convert`.
#[derive(Debug, Deserialize)]
struct Config {
    /// The API: it answers `GET {url}/rates/USD` with `{"euros": 0.92}`.
    url: String,
}

/// A price in any currency.
#[derive(Debug, Deserialize)]
struct Price {
    article: String,
    amount: f64,
    currency: String,
}

/// A price in euros.
#[derive(Debug, PartialEq, Serialize)]
struct Converted {
    article: String,
    euros: f64,
}

/// An answer of the API.
#[derive(Debug, Deserialize)]
struct Rate {
    euros: f64,
}

/// Converts a price into euros.
#[task(calls(http, kv))]
fn convert(price: Price, cx: &Context<Config>) -> Result<Converted, Error> {
    let rate = rate(&price.currency, &cx.config().url)?;
    Ok(Converted { article: price.article, euros: (price.amount * rate * 100.0).round() / 100.0 })
}

/// Returns how many euros one unit of a currency is, from the cache or the API.
fn rate(currency: &str, url: &str) -> Result<f64, Error> {
    // It becomes a part of a URL and of a key.
    if currency.len() != 3 || !currency.bytes().all(|letter| letter.is_ascii_uppercase()) {
        return Err(Error::fatal(format!("`{currency}` is not a currency")));
    }
    let cache = kv::bucket("rates");
    if let Some(entry) = cache.get(currency)? {
        return Ok(entry.text()?.parse()?);
    }
    log::info!("asking for the rate of {currency}");
    let response = http::get(format!("{url}/rates/{currency}"))
        .header("Authorization", Secret("rates_token").bearer())
        .send()?
        .error_for_status()?;
    let Rate { euros } = response.json()?;
    cache.put(currency, euros.to_string())?;
    Ok(euros)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pcluster_sdk::http::Response;
    use pcluster_sdk::testing::World;

    use super::*;

    const URL: &str = "https://rates.example.com/v1/rates/USD";

    fn convert_in(world: &World, amount: f64, currency: &str) -> Result<Converted, Error> {
        let price = Price { article: "tea".to_owned(), amount, currency: currency.to_owned() };
        let config = Config { url: "https://rates.example.com/v1".to_owned() };
        world.run(|| convert(price, &Context::for_test(config)))
    }

    #[test]
    fn a_rate_is_asked_for_once_and_kept() {
        let world = World::new().http("GET", URL, Response::for_test(200, r#"{"euros": 0.92}"#)).kv("rates", &[]);
        for (amount, euros) in [(10.0, 9.2), (20.0, 18.4)] {
            let converted = convert_in(&world, amount, "USD").expect("a price");
            assert_eq!(converted, Converted { article: "tea".to_owned(), euros });
        }
        assert_eq!(world.requests().len(), 1);
        assert_eq!(world.requests()[0].header("authorization"), Some("Bearer {rates_token}"));
        assert_eq!(world.entry("rates", "USD").as_deref(), Some(&b"0.92"[..]));
    }

    #[test]
    fn an_api_that_is_busy_is_asked_again_when_it_says() {
        let busy = Response::for_test(503, "").with_header("Retry-After", "20");
        let error =
            convert_in(&World::new().http("GET", URL, busy).kv("rates", &[]), 1.0, "USD").expect_err("an error");
        assert_eq!((error.is_fatal(), error.delay()), (false, Some(Duration::from_secs(20))));
    }

    #[test]
    fn a_currency_that_is_not_there_fails_for_good() {
        let unknown = World::new().http("GET", URL, Response::for_test(404, "")).kv("rates", &[]);
        assert!(convert_in(&unknown, 1.0, "USD").expect_err("an error").is_fatal());
        for currency in ["usd", "USDT", "../"] {
            assert!(convert_in(&World::new(), 1.0, currency).expect_err("an error").is_fatal());
        }
    }
}
