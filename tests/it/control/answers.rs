//! What members answer to commands, and when.

use super::operator::{Operator, held, logging};
use crate::support::{Gate, Log, Member, WITHIN};
use evenkeel::control::{Action, Scope};
use evenkeel::testing::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_answered_once_for_its_scope() {
    let Some(case) = Operator::new(2).await else {
        return;
    };
    let start = || Member::start(&case.kafka, case.settings(), logging(&Log::new()));
    let member = start();
    member.joined().await;
    let pause = Action::Pause {
        scope: Scope::Group,
    };
    let (pause, _) = case.command(pause).await;
    // Each is news, and the pause is in force: it is not said again.
    let mut retries = Vec::new();
    for _ in 0..20 {
        let scope = case.partition_scope(1);
        retries.push(case.command(Action::RetryNow { scope }).await.0);
    }
    for retry in &retries {
        case.acknowledged(retry, &[1]).await;
        let answers = case.answers(retry).await;
        assert_eq!(answers, [vec![case.partition_scope(1)]]);
    }
    // One partition may have been done before the other.
    let mut paused = case.answers(&pause).await.concat();
    paused.sort();
    assert_eq!(paused, [0, 1].map(|number| case.partition_scope(number)));
    assert!(member.stop().await.clean);

    // What was taken back while nobody was there is no news to whoever comes.
    let resume = Action::Resume {
        scope: Scope::Group,
    };
    let (resume, _) = case.command(resume).await;
    let member = start();
    member.joined().await;
    let scope = Scope::Group;
    let (retry, _) = case.command(Action::RetryNow { scope }).await;
    case.acknowledged(&retry, &[0, 1]).await;
    assert_eq!(case.answers(&resume).await.len(), 0);
    assert!(member.stop().await.clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_waits_for_handlers_and_a_resume_for_it() {
    let Some(case) = Operator::new(1).await else {
        return;
    };
    let (gate, started) = (Gate::closed(), Log::new());
    let router = held(&started, &gate, |_| Ok(()));
    let mut settings = case.settings();
    settings.revoke_timeout = WITHIN * 2;
    let member = Member::start(&case.kafka, settings, router);
    case.publish_rounds(&[0], 0..3).await;
    started.reach("handlers that run", 3).await;
    let scope = case.partition_scope(0);
    for action in [
        Action::Pause {
            scope: scope.clone(),
        },
        Action::Resume {
            scope: scope.clone(),
        },
    ] {
        let (command, _) = case.command(action).await;
        // Answers come in the order of the commands, but for one that waits.
        let scope = scope.clone();
        let (retry, _) = case.command(Action::RetryNow { scope }).await;
        case.acknowledged(&retry, &[0]).await;
        assert_eq!(case.answers(&command).await.len(), 0, "{command:?}");
    }
    gate.open();
    case.all_committed().await;
    eventually("the resume is answered", WITHIN, || async {
        let history = case.history().await;
        let resume = history
            .iter()
            .find(|at| at.command.action.name() == "resume");
        (resume?.acks.len() == 1).then_some(())
    })
    .await;
    assert!(member.stop().await.clean);
    assert_eq!(started.len(), 3, "nothing came again");
}
