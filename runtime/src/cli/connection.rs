//! The flags by which every command finds its server.

use std::collections::BTreeMap;

/// Where NATS is and how to log in.
#[derive(Debug, clap::Args)]
pub struct Connection {
    /// Where NATS is: nats://[user:password@]host:port, several separated by commas
    #[arg(long, global = true, value_name = "URL")]
    nats: Option<String>,
    /// Context of the `nats` program to connect with; `-`: the one that is selected there
    #[arg(long, global = true, value_name = "NAME", allow_hyphen_values = true)]
    context: Option<String>,
    /// Credentials file for NATS
    #[arg(long, global = true, value_name = "FILE")]
    creds: Option<String>,
    /// File with the seed of an nkey
    #[arg(long, global = true, value_name = "FILE")]
    nkey: Option<String>,
    /// User; the password is better put into `PCLUSTER_PASSWORD` than into --password
    #[arg(long, global = true, value_name = "NAME")]
    user: Option<String>,
    /// Password of the user
    #[arg(long, global = true, value_name = "PASSWORD")]
    password: Option<String>,
    /// Token to log in with
    #[arg(long, global = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Certificate of the authority that has signed the server's
    #[arg(long, global = true, value_name = "FILE")]
    tlsca: Option<String>,
    /// Certificate to show to the server
    #[arg(long, global = true, value_name = "FILE")]
    tlscert: Option<String>,
    /// Private key of the certificate
    #[arg(long, global = true, value_name = "FILE")]
    tlskey: Option<String>,
    /// `JetStream` domain
    #[arg(long, global = true, value_name = "NAME")]
    domain: Option<String>,
}

impl Connection {
    /// Adds the flags that were given to the settings' sources.
    pub(super) fn flags(&self, flags: &mut BTreeMap<&'static str, String>) {
        let given = [
            ("nats", &self.nats),
            ("context", &self.context),
            ("creds", &self.creds),
            ("nkey", &self.nkey),
            ("user", &self.user),
            ("password", &self.password),
            ("token", &self.token),
            ("tlsca", &self.tlsca),
            ("tlscert", &self.tlscert),
            ("tlskey", &self.tlskey),
            ("domain", &self.domain),
        ];
        flags.extend(given.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))));
    }
}
