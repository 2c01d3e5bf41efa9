//! The list of the stores whose transactions and errors handlers meet.
//!
//! A store with transactions has one line in each of the two lists.

use crate::failure::Class;
use std::error::Error;

/// Implements [`FromContext`] for the stores' transactions, so that a handler can take one as an
/// argument.
macro_rules! transactions {
    ($($feature:literal: $transaction:ty),*) => {$(
        #[cfg(feature = $feature)]
        impl crate::handler::FromContext for $transaction {
            fn transaction_type() -> Option<std::any::TypeId> {
                Some(std::any::TypeId::of::<Self>())
            }

            fn from_context(
                context: &crate::handler::Context,
            ) -> Result<Self, crate::handler::HandlerError> {
                context.take_transaction::<Self>().ok_or_else(|| {
                    crate::handler::HandlerError::permanent(
                        "the inbox's transaction is taken; name it once among the arguments",
                    )
                })
            }
        }

        #[cfg(feature = $feature)]
        impl crate::handler::BatchArgument for $transaction {}
    )*};
}

transactions!(
    "postgres": crate::inbox::PostgresTx,
    "sqlite": crate::inbox::SqliteTx
);

/// Returns the class of an error of a store's driver, and `None` for any other error.
type ClassOf = fn(&(dyn Error + 'static)) -> Option<Class>;

/// The first that knows an error decides its class.
pub(super) const CLASSIFIERS: &[ClassOf] = &[
    #[cfg(feature = "postgres")]
    crate::postgres::class_of,
    #[cfg(feature = "sqlite")]
    crate::sqlite::class_of,
];
