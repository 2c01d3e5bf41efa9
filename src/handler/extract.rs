//! Async functions as handlers: the first argument is the event (or the raw record), further
//! arguments come from the context.

use super::context::{Context, ContextSource};
use super::{BatchOutcome, Delivered, HandlerError, IntoBatchOutcome, IntoOutcome, Outcome};
use crate::event::{Event, Record};
use std::any::{Any, TypeId};
use std::future::Future;

/// A handler argument after the event.
///
/// Implemented by [`Context`], [`State`] and the transactions of the inbox stores. The router calls
/// [`FromContext::from_context`] once per delivery and argument, in the worker's task, before the
/// handler starts; it must not block.
pub trait FromContext: Sized + Send + 'static {
    /// The type of transaction that this argument needs.
    /// [`Router::validate`](super::Router::validate) refuses a router whose inbox hands out no such
    /// transaction. Default: none.
    fn transaction_type() -> Option<TypeId> {
        None
    }

    /// The type of shared state that this argument needs, with its name.
    /// [`Router::validate`](super::Router::validate) refuses a router without it. Default: none.
    fn state_type() -> Option<(TypeId, &'static str)> {
        None
    }

    /// Takes the argument from the delivery's context.
    ///
    /// # Errors
    /// If the context does not have it.
    fn from_context(context: &Context) -> Result<Self, HandlerError>;
}

impl FromContext for Context {
    fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(context.clone())
    }
}

/// The router's shared state as a handler argument. Each delivery receives a clone of the state set
/// by [`Router::with_state`](super::Router::with_state).
#[derive(Debug, Clone)]
pub struct State<S>(pub S);

impl<S: Any + Clone + Send + Sync> FromContext for State<S> {
    fn state_type() -> Option<(TypeId, &'static str)> {
        Some((TypeId::of::<S>(), std::any::type_name::<S>()))
    }

    fn from_context(context: &Context) -> Result<Self, HandlerError> {
        context.shared::<S>().map(State).ok_or_else(|| {
            HandlerError::permanent("the router has no such state; give it with Router::with_state")
        })
    }
}

/// A batch handler's argument after the events, shared by all of them.
///
/// Implemented by [`State`] and the transactions of the inbox stores. A [`Context`] belongs to one
/// event, so each event carries its own.
pub trait BatchArgument: FromContext {}

impl<S: Any + Clone + Send + Sync> BatchArgument for State<S> {}

/// The transactions of the stores, which claims offer to their handlers.
macro_rules! transactions {
    ($($feature:literal: $transaction:ty),*) => {$(
        #[cfg(feature = $feature)]
        impl FromContext for $transaction {
            fn transaction_type() -> Option<TypeId> {
                Some(TypeId::of::<Self>())
            }

            fn from_context(context: &Context) -> Result<Self, HandlerError> {
                context.take_transaction::<Self>().ok_or_else(|| {
                    HandlerError::permanent(
                        "the store's transaction is taken already: name it once among the arguments",
                    )
                })
            }
        }

        #[cfg(feature = $feature)]
        impl BatchArgument for $transaction {}
    )*};
}

transactions!("postgres": crate::inbox::PostgresTx, "sqlite": crate::inbox::SqliteTx);

/// The needs of a handler beside its event, as its arguments declare them.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Transaction types.
    pub(crate) transactions: Vec<TypeId>,
    /// State types with their names.
    pub(crate) states: Vec<(TypeId, &'static str)>,
}

impl Needs {
    /// Whether an argument is a transaction.
    pub(crate) fn names_transaction(&self) -> bool {
        !self.transactions.is_empty()
    }

    fn of<A: FromContext>(mut self) -> Self {
        self.transactions.extend(A::transaction_type());
        self.states.extend(A::state_type());
        self
    }
}

/// An async function that handles events of type `T`. `Args` distinguishes the implementations.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    note = "a handler is an async function whose first argument is `Event<T>`, whose other arguments (at most three) are `Context`, `State<S>` or a transaction, and that returns `()`, an `Outcome` or a `Result` of either"
)]
pub trait Function<T, Args>: Clone + Send + Sync + 'static {
    /// The needs of its arguments.
    fn needs() -> Needs;
    /// Calls the function.
    fn call(
        &self,
        event: Event<T>,
        source: &ContextSource<'_>,
    ) -> impl Future<Output = Outcome> + Send + 'static + use<Self, T, Args>;
}

/// An async function that handles raw records.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of raw records",
    note = "a raw handler is an async function whose first argument is `Record`, whose other arguments (at most three) are `Context`, `State<S>` or a transaction, and that returns `()`, an `Outcome` or a `Result` of either"
)]
pub trait RawFunction<Args>: Clone + Send + Sync + 'static {
    /// The needs of its arguments.
    fn needs() -> Needs;
    /// Calls the function.
    fn call(
        &self,
        record: Record,
        source: &ContextSource<'_>,
    ) -> impl Future<Output = Outcome> + Send + 'static + use<Self, Args>;
}

/// An async function that handles a batch of events of type `T`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a batch handler",
    note = "a batch handler is an async function whose first argument is `Vec<Delivered<T>>`, whose other arguments (at most three) are `State<S>` or a transaction, and that returns `()`, a `Vec<Outcome>` or a `Result` of either"
)]
pub trait BatchFunction<T, Args>: Clone + Send + Sync + 'static {
    /// The needs of its arguments.
    fn needs() -> Needs;
    /// Calls the function.
    fn call(
        &self,
        events: Vec<Delivered<T>>,
        source: &ContextSource<'_>,
    ) -> impl Future<Output = BatchOutcome> + Send + 'static + use<Self, T, Args>;
}

macro_rules! functions {
    ($($arg:ident),*) => {
        impl<F, Fut, Out, T, $($arg,)*> Function<T, (T, $($arg,)*)> for F
        where
            F: Fn(Event<T>, $($arg,)*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = Out> + Send + 'static,
            Out: IntoOutcome,
            T: Send + 'static,
            $($arg: FromContext,)*
        {
            fn needs() -> Needs {
                Needs::default()$(.of::<$arg>())*
            }

            functions!(@call Event<T> => Outcome, into_outcome, (T $(, $arg)*), $($arg),*);
        }

        impl<F, Fut, Out, $($arg,)*> RawFunction<(Record, $($arg,)*)> for F
        where
            F: Fn(Record, $($arg,)*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = Out> + Send + 'static,
            Out: IntoOutcome,
            $($arg: FromContext,)*
        {
            fn needs() -> Needs {
                Needs::default()$(.of::<$arg>())*
            }

            functions!(@call Record => Outcome, into_outcome, ($($arg),*), $($arg),*);
        }

        impl<F, Fut, Out, T, $($arg,)*> BatchFunction<T, (T, $($arg,)*)> for F
        where
            F: Fn(Vec<Delivered<T>>, $($arg,)*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = Out> + Send + 'static,
            Out: IntoBatchOutcome,
            T: Send + 'static,
            $($arg: BatchArgument,)*
        {
            fn needs() -> Needs {
                Needs::default()$(.of::<$arg>())*
            }

            functions!(
                @call Vec<Delivered<T>> => BatchOutcome, into_batch_outcome, (T $(, $arg)*), $($arg),*
            );
        }
    };
    (
        @call $input:ty => $output:ty, $into:ident, ($($captured:ident),*), $($arg:ident),*
    ) => {
        #[allow(non_snake_case, unused_variables, reason = "a function without further arguments takes nothing")]
        fn call(
            &self,
            input: $input,
            source: &ContextSource<'_>,
        ) -> impl Future<Output = $output> + Send + 'static + use<F, Fut, Out, $($captured,)*> {
            let called = || {
                $(let $arg = $arg::from_context(source.get())?;)*
                Ok(self(input, $($arg,)*))
            };
            let called: Result<Fut, HandlerError> = called();
            async move {
                match called {
                    Ok(handled) => handled.await.$into(),
                    Err(error) => Err::<(), _>(error).$into(),
                }
            }
        }
    };
}

functions!();
functions!(A);
functions!(A, B);
functions!(A, B, C);
