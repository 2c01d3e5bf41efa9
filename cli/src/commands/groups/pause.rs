//! `evenkeel groups pause` and `resume`: records wait until somebody says otherwise.

use super::order::{self, OrderArgs};
use super::target::TargetArgs;
use crate::connection::ConnectionArgs;
use crate::exit::{Ending, Usage};
use clap::Args;
use evenkeel::control::{Action, Scope};

/// Stop handling a group, a topic or a partition until it is resumed.
///
/// Handlers that run may end, and what they did is committed; nothing else starts, within a second. The members stay in the
/// group. A pause outlives them: whoever is assigned a paused partition handles nothing of it.
#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// The group.
    group: String,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    order: OrderArgs,
}

/// Take back the pause of exactly what was paused.
///
/// A partition goes on, from where it stands, when no pause is left that covers it.
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// The group.
    group: String,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    order: OrderArgs,
}

impl PauseArgs {
    pub(super) fn check(&self) -> Result<(), Usage> {
        let scope = no_key(self.target.scope()?)?;
        self.order.check(Action::Pause { scope })
    }
}

impl ResumeArgs {
    pub(super) fn check(&self) -> Result<(), Usage> {
        let scope = no_key(self.target.scope()?)?;
        self.order.check(Action::Resume { scope })
    }
}

/// A key's records wait when one of them fails: nobody has to pause it.
fn no_key(scope: Scope) -> Result<Scope, Usage> {
    match scope {
        Scope::Key { .. } => {
            let text = "a key cannot be paused; name its partition";
            Err(Usage(text.to_owned()))
        }
        scope => Ok(scope),
    }
}

/// Pauses.
pub(super) async fn run(connection: &ConnectionArgs, args: PauseArgs) -> anyhow::Result<Ending> {
    let scope = args.target.scope()?;
    order::give(connection, &args.group, args.order, Action::Pause { scope }).await
}

/// Resumes.
pub(super) async fn run_resume(
    connection: &ConnectionArgs,
    args: ResumeArgs,
) -> anyhow::Result<Ending> {
    let scope = args.target.scope()?;
    order::give(
        connection,
        &args.group,
        args.order,
        Action::Resume { scope },
    )
    .await
}
