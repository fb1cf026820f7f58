//! Hints on what to do about an error. They name commands and flags of this program.

use crate::broker::BrokerError;
use crate::client::ClientError;
use crate::node::NodeError;

/// Returns the hint that follows the text of an error.
pub fn of(error: &anyhow::Error) -> Option<String> {
    if let Some(error) = error.downcast_ref() {
        return of_client(error);
    }
    match error.downcast_ref() {
        Some(NodeError::Broker(error)) => of_broker(error),
        _ => of_broker(error.downcast_ref()?),
    }
}

fn of_client(error: &ClientError) -> Option<String> {
    Some(match error {
        ClientError::Broker(error) => return of_broker(error),
        ClientError::NoChain { known, .. } if known.is_empty() => ": `pcluster deploy chain.toml`".to_owned(),
        ClientError::NoStage { known, .. } if known.is_empty() => ": `pcluster deploy chain.toml`".to_owned(),
        ClientError::NoLetter { chain, .. } => format!("; `pcluster dead ls {chain}` shows those that it has"),
        ClientError::NoManifest(_) => {
            "; name the chain's manifest, as in `pcluster deploy my-chain/chain.toml`".to_owned()
        }
        ClientError::IntakeShared { domain, .. } => {
            let domain = domain.as_ref().map(|domain| format!(" {domain}")).unwrap_or_default();
            format!("; if that one is meant, name its domain with `--domain{domain}`")
        }
        ClientError::WouldDrop { .. } => ", or remove them with `--force`".to_owned(),
        ClientError::Contract(_) => "; `--no-contracts` takes them all the same".to_owned(),
        ClientError::Closed(chain) => format!("; `pcluster start {chain}` opens it"),
        _ => return None,
    })
}

/// Returns the hint for an error of the server.
pub fn of_broker(error: &BrokerError) -> Option<String> {
    let hint = match error {
        BrokerError::Unreachable { .. } => {
            ". Is nats-server running? `--nats URL` names another one, `pcluster dev` starts one"
        }
        BrokerError::Tls { .. } => {
            ". `--tlsca FILE` names the authority that has signed the server's certificate, `--tlscert FILE` and \
             `--tlskey FILE` the client's own"
        }
        BrokerError::Refused { .. } => {
            ". Put user and password into the URL or give `--creds FILE`, `--nkey FILE`, `--token` or `--context NAME`"
        }
        BrokerError::NoDomain { .. } => "; `--domain` names another one",
        BrokerError::Gone { chain, .. } => return Some(format!("; `pcluster start {chain}` makes it anew")),
        _ => return None,
    };
    Some(hint.to_owned())
}
