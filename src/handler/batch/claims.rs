//! The inbox's part in a batch: claims of all its deliveries, and how they end.
//!
//! Owns the choice between one transaction for all, and claims one by one for a store that has none, or a handler that names
//! none.

use crate::event::OutgoingRecord;
use crate::inbox::{BatchClaim, Claim, Claimed, Inbox, InboxError, InboxKey};
use futures_util::future::join_all;
use std::any::Any;
use std::error::Error;
use std::task::{Context, Poll};

/// What the inbox says of the deliveries of a batch.
pub(super) struct Answered {
    /// For each in order: nothing where it is fresh, or what the completion of a duplicate left to publish.
    pub(super) known: Vec<Option<Result<Vec<OutgoingRecord>, InboxError>>>,
    /// Of those that are fresh.
    pub(super) claims: Claims,
}

/// The claims of a batch. Dropping them abandons them.
pub(super) enum Claims {
    /// There is no inbox.
    Unneeded,
    /// One for all, with one transaction.
    Whole(Box<dyn BatchClaim>),
    /// One for each.
    Each(Vec<Box<dyn Claim>>),
}

/// How many of so many deliveries may be claimed together. A store whose claims hand out transactions, but not for several
/// deliveries at once, has them one by one: claims of one transaction each could wait for each other.
pub(super) fn together_max(inbox: Option<&dyn Inbox>, records_max: usize) -> usize {
    match inbox {
        Some(inbox) if inbox.batches().is_none() && inbox.transaction_type().is_some() => 1,
        _ => records_max,
    }
}

/// Claims deliveries, all different, for a handler that names the store's transaction or does not.
pub(super) async fn claim(
    inbox: Option<&dyn Inbox>,
    keys: Vec<Option<InboxKey>>,
    names_transaction: bool,
) -> Result<Answered, InboxError> {
    let Some(inbox) = inbox else {
        return Ok(Answered {
            known: keys.iter().map(|_| None).collect(),
            claims: Claims::Unneeded,
        });
    };
    let keys: Vec<InboxKey> = keys.into_iter().flatten().collect();
    match inbox.batches() {
        Some(batches) if names_transaction => {
            let claimed = batches.claim_batch(&keys).await?;
            let claims = claimed
                .claim
                .map_or_else(|| Claims::Each(Vec::new()), Claims::Whole);
            Ok(Answered {
                known: claimed.known,
                claims,
            })
        }
        _ => claim_each(inbox, &keys, names_transaction).await,
    }
}

/// In the same order everywhere, or two processes could wait for each other.
async fn claim_each(
    inbox: &dyn Inbox,
    keys: &[InboxKey],
    names_transaction: bool,
) -> Result<Answered, InboxError> {
    let mut places: Vec<usize> = (0..keys.len()).collect();
    places.sort_unstable_by_key(|place| {
        let key = &keys[*place];
        (&key.group, &key.handler, &key.source, &key.id)
    });
    let mut known: Vec<_> = keys.iter().map(|_| None).collect();
    let mut claims = Vec::with_capacity(keys.len());
    for place in places {
        let claimed = match names_transaction {
            true => inbox.claim(&keys[place]).await,
            false => inbox.claim_without_transaction(&keys[place]).await,
        };
        match claimed {
            Ok(Claimed::Fresh(claim)) => claims.push((place, claim)),
            Ok(Claimed::Duplicate { unsent }) => known[place] = Some(Ok(unsent)),
            Err(InboxError::Reused) => known[place] = Some(Err(InboxError::Reused)),
            Err(error) => return Err(error),
        }
    }
    claims.sort_unstable_by_key(|(place, _)| *place);
    let claims = claims.into_iter().map(|(_, claim)| claim).collect();
    Ok(Answered {
        known,
        claims: Claims::Each(claims),
    })
}

impl Claims {
    /// The transaction for the handler.
    pub(super) fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        match self {
            Self::Whole(claim) => claim.transaction(),
            // A store that has transactions, but not for several, has one delivery here.
            Self::Each(claims) => claims.first_mut()?.transaction(),
            Self::Unneeded => None,
        }
    }

    /// Ready when the store has stopped answering while the handler has its transaction.
    pub(super) fn poll_recalled(&mut self, cx: &mut Context<'_>) -> Poll<InboxError> {
        match self {
            Self::Whole(claim) => claim.poll_recalled(cx),
            Self::Each(claims) => match claims.first_mut() {
                Some(claim) => claim.poll_recalled(cx),
                None => Poll::Pending,
            },
            Self::Unneeded => Poll::Pending,
        }
    }

    /// Completes those for which `published` says what was published, and gives the others back. Answers for each of the former
    /// with what is left to publish now; an error of the whole is that of all.
    pub(super) async fn complete(
        self,
        published: Vec<Option<Vec<OutgoingRecord>>>,
    ) -> Result<Vec<Result<Vec<OutgoingRecord>, InboxError>>, InboxError> {
        match self {
            Self::Unneeded => Ok(published.into_iter().flatten().map(Ok).collect()),
            Self::Whole(claim) => {
                let unsent = claim.complete(published).await?;
                Ok(unsent.into_iter().map(Ok).collect())
            }
            Self::Each(claims) => {
                // Together, as they may share a commit.
                let ended = claims
                    .into_iter()
                    .zip(published)
                    .map(async |(claim, published)| match published {
                        Some(published) => Some(claim.complete(published).await),
                        None => {
                            told(claim.abandon().await);
                            None
                        }
                    });
                Ok(join_all(ended).await.into_iter().flatten().collect())
            }
        }
    }

    /// Gives all of them back.
    pub(super) async fn abandon(self) {
        match self {
            Self::Unneeded => {}
            Self::Whole(claim) => told(claim.abandon().await),
            Self::Each(claims) => {
                for claim in claims {
                    told(claim.abandon().await);
                }
            }
        }
    }

    /// The same for a handler that failed with this error. Whether another transaction was in its way.
    pub(super) async fn fail(self, error: &(dyn Error + Send + Sync + 'static)) -> bool {
        let failed = match self {
            Self::Whole(claim) => claim.fail(error).await,
            Self::Each(mut claims) if claims.len() == 1 => match claims.pop() {
                Some(alone) => alone.fail(error).await,
                None => Ok(false),
            },
            claims => {
                claims.abandon().await;
                Ok(false)
            }
        };
        let collided = matches!(failed, Ok(true));
        told(failed.map(drop));
        collided
    }
}

fn told(abandoned: Result<(), InboxError>) {
    if let Err(error) = abandoned {
        tracing::warn!(%error, "a failed batch handler's claim could not be given back at once");
    }
}
