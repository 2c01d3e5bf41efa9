//! The fake payment provider; see [`shop_consumers::provider`].

use clap::Parser;
use shop_consumers::provider::server::{ProviderArgs, serve};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    serve(&ProviderArgs::parse()).await
}
