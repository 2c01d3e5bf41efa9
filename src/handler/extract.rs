//! Async functions as handlers: the first argument is the event (or the raw record), further
//! arguments come from the context.
//!
//! [`Function`], [`RawFunction`] and [`BatchFunction`] are implemented by a macro for functions
//! with zero to three further arguments. Their `Args` parameter makes the implementations distinct;
//! it is inferred. A context is created only if an argument takes something from it, so that a
//! handler of the event alone costs no allocation for it.

use super::context::{Context, ContextSource};
use super::{BatchOutcome, Delivered, HandlerError, IntoBatchOutcome, IntoOutcome, Outcome};
use crate::event::{Event, Record};
use std::any::{Any, TypeId};
use std::future::Future;

/// A handler argument after the event.
///
/// Implemented by [`Context`], [`State`] and the transactions of the inbox stores. The router calls
/// [`FromContext::from_context`] once per delivery and argument, in the worker's task, before the
/// handler starts and after the inbox has claimed the delivery; for a batch handler once per batch,
/// in the batch's task. It must not block: other records of the worker wait meanwhile. A panic in
/// it dead-letters the record.
///
/// Implement it for values that several handlers read from headers:
///
/// ```
/// use evenkeel::event::Record;
/// use evenkeel::handler::{Context, FromContext, HandlerError, Router};
///
/// struct Tenant(String);
///
/// impl FromContext for Tenant {
///     fn from_context(context: &Context) -> Result<Self, HandlerError> {
///         let tenant = context.headers().last_value("tenant");
///         let missing = || HandlerError::permanent("the record has no header `tenant`");
///         let tenant = tenant.ok_or_else(missing)?;
///         Ok(Self(String::from_utf8_lossy(tenant).into_owned()))
///     }
/// }
///
/// async fn handle(record: Record, Tenant(tenant): Tenant) {
///     println!("{record:?} of {tenant}");
/// }
///
/// let router = Router::new().raw(handle);
/// router.validate()?;
/// # Ok::<(), evenkeel::kafka::ConfigError>(())
/// ```
pub trait FromContext: Sized + Send + 'static {
    /// The type of transaction that this argument needs. A handler may have one such argument.
    /// [`Router::validate`](super::Router::validate) refuses a router whose inbox hands out no such
    /// transaction, before any record is handled. Default: none.
    ///
    /// An argument that declares a type takes it with [`Context::take_transaction`]. Only a handler
    /// with such an argument has a transaction at all; for others the inbox may use a cheaper
    /// claim.
    fn transaction_type() -> Option<TypeId> {
        None
    }

    /// The type of shared state that this argument needs, with its name for messages.
    /// [`Router::validate`](super::Router::validate) refuses a router without it, before any record
    /// is handled. Default: none.
    fn state_type() -> Option<(TypeId, &'static str)> {
        None
    }

    /// Takes the argument from the delivery's context.
    ///
    /// # Errors
    /// If the context does not have it. The handler is not called, and the error ends the attempt
    /// like one of the handler: its class decides whether the record is retried.
    fn from_context(context: &Context) -> Result<Self, HandlerError>;
}

impl FromContext for Context {
    fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(context.clone())
    }
}

/// The router's shared state as a handler argument. Each delivery receives a clone of the state set
/// by [`Router::with_state`](super::Router::with_state), so a large state belongs in an
/// [`Arc`](std::sync::Arc).
///
/// ```
/// use evenkeel::event::Record;
/// use evenkeel::handler::{Router, State};
/// use std::sync::Arc;
///
/// type Names = Arc<Vec<String>>;
///
/// async fn handle(_: Record, State(names): State<Names>) {
///     println!("{} names", names.len());
/// }
///
/// let router = Router::new().raw(handle);
/// assert!(router.validate().is_err(), "the state is missing");
/// router.with_state(Names::default()).validate()?;
/// # Ok::<(), evenkeel::kafka::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct State<S>(pub S);

impl<S: Any + Clone + Send + Sync> FromContext for State<S> {
    fn state_type() -> Option<(TypeId, &'static str)> {
        Some((TypeId::of::<S>(), std::any::type_name::<S>()))
    }

    fn from_context(context: &Context) -> Result<Self, HandlerError> {
        context.shared::<S>().map(State).ok_or_else(|| {
            let state = std::any::type_name::<S>();
            HandlerError::permanent(format!(
                "the router has no state {state}; set it with Router::with_state"
            ))
        })
    }
}

/// A batch handler's argument after the events, shared by all of them.
///
/// Implemented by [`State`] and the transactions of the inbox stores. A [`Context`] belongs to one
/// event, so each event carries its own ([`Delivered::context`]).
///
/// A marker: implement it for an argument of your own only if its value is the same for all events
/// of a batch. [`FromContext::from_context`] receives the context of the first event.
pub trait BatchArgument: FromContext {}

impl<S: Any + Clone + Send + Sync> BatchArgument for State<S> {}

/// The needs of a handler beside its event, as its arguments declare them
/// ([`FromContext::transaction_type`], [`FromContext::state_type`]). The router checks them in
/// [`Router::validate`](super::Router::validate).
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
///
/// Implemented for every `async fn(Event<T>, …)` with at most three further arguments that
/// implement [`FromContext`], and whose result implements [`IntoOutcome`]; there is no need to
/// implement it.
///
/// The router calls it once per attempt. The future runs in the task of a worker, among those of
/// other records: it must not block the thread ([`tokio::task::spawn_blocking`] is for that). It is
/// dropped at an await when `handler_timeout` passes, when the deadline of a stop passes, or when
/// its store stops answering. What it wrote in the inbox's transaction is then undone; all other
/// effects must tolerate a repetition. After a revoke it runs on, and its result is ignored.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    note = "a handler is an async function whose first argument is `Event<T>`, whose other arguments (at most three) are `Context`, `State<S>` or a transaction, and that returns `()`, an `Outcome` or a `Result` of either"
)]
pub trait Function<T, Args>: Clone + Send + Sync + 'static {
    /// The needs of its arguments.
    fn needs() -> Needs;
    /// Takes the arguments and calls the function. The future borrows nothing.
    fn call(
        &self,
        event: Event<T>,
        source: &ContextSource<'_>,
    ) -> impl Future<Output = Outcome> + Send + 'static + use<Self, T, Args>;
}

/// An async function that handles raw records: a [`Function`] whose first argument is a
/// [`Record`]. The same rules apply.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of raw records",
    note = "a raw handler is an async function whose first argument is `Record`, whose other arguments (at most three) are `Context`, `State<S>` or a transaction, and that returns `()`, an `Outcome` or a `Result` of either"
)]
pub trait RawFunction<Args>: Clone + Send + Sync + 'static {
    /// The needs of its arguments.
    fn needs() -> Needs;
    /// Takes the arguments and calls the function. The future borrows nothing.
    fn call(
        &self,
        record: Record,
        source: &ContextSource<'_>,
    ) -> impl Future<Output = Outcome> + Send + 'static + use<Self, Args>;
}

/// An async function that handles a batch of events of type `T`: a [`Function`] whose first
/// argument is a `Vec` of [`Delivered`], whose other arguments implement [`BatchArgument`], and
/// whose result implements [`IntoBatchOutcome`].
///
/// It runs in a task of its own, once per batch. It is dropped when none of its deliveries is
/// waited for any more, when `handler_timeout` passes, or when its store stops answering.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a batch handler",
    note = "a batch handler is an async function whose first argument is `Vec<Delivered<T>>`, whose other arguments (at most three) are `State<S>` or a transaction, and that returns `()`, a `Vec<Outcome>` or a `Result` of either"
)]
pub trait BatchFunction<T, Args>: Clone + Send + Sync + 'static {
    /// The needs of its arguments.
    fn needs() -> Needs;
    /// Takes the arguments and calls the function. The future borrows nothing.
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
