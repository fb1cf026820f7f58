//! The flags by which every command finds its NATS server.

use serde::Serialize;

/// Where NATS is and how to log in. Each field is the setting of the same name.
#[derive(Debug, clap::Args, Serialize)]
pub struct Connection {
    /// URL of the NATS server: nats://[user:password@]host:port, or several URLs separated by commas
    #[arg(long, global = true, value_name = "URL")]
    nats: Option<String>,
    /// Context of the `nats` program to connect with; `-` is the selected context
    #[arg(long, global = true, value_name = "NAME", allow_hyphen_values = true)]
    context: Option<String>,
    /// Credentials file for NATS
    #[arg(long, global = true, value_name = "FILE")]
    creds: Option<String>,
    /// File with the seed of an nkey
    #[arg(long, global = true, value_name = "FILE")]
    nkey: Option<String>,
    /// User to log in as. Put the password into `PCLUSTER_PASSWORD`: other users of the machine can see flags
    #[arg(long, global = true, value_name = "NAME")]
    user: Option<String>,
    /// Password of the user
    #[arg(long, global = true, value_name = "PASSWORD")]
    password: Option<String>,
    /// Token to log in with
    #[arg(long, global = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Certificate of the authority that signed the server's certificate
    #[arg(long, global = true, value_name = "FILE")]
    tlsca: Option<String>,
    /// Certificate to show to the server
    #[arg(long, global = true, value_name = "FILE")]
    tlscert: Option<String>,
    /// Private key of that certificate
    #[arg(long, global = true, value_name = "FILE")]
    tlskey: Option<String>,
    /// `JetStream` domain
    #[arg(long, global = true, value_name = "NAME")]
    domain: Option<String>,
}
