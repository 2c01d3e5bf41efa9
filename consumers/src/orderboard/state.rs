//! The state of an order as a function of its facts. Pure.

use std::str::FromStr;

macro_rules! named {
    ($(#[$meta:meta])* $enum:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $enum {
            $($(#[$doc])* $variant,)*
        }

        impl $enum {
            /// Every value, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in the store and in output.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        impl FromStr for $enum {
            type Err = String;

            fn from_str(name: &str) -> Result<Self, String> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|value| value.as_str() == name)
                    .ok_or_else(|| {
                        let known: Vec<_> = Self::ALL.iter().map(|value| value.as_str()).collect();
                        format!("unknown name {name:?}; known are {}", known.join(", "))
                    })
            }
        }
    };
}

named! {
    /// A fact that an event contained about an order.
    Fact {
        /// The order was placed.
        Placed = "placed",
        /// Its payment is authorized.
        Paid = "paid",
        /// Its payment is declined.
        Declined = "declined",
        /// Its stock is reserved.
        Reserved = "reserved",
        /// There is not enough stock for it.
        Rejected = "rejected",
        /// Its reserved stock was released.
        Released = "released",
        /// It was cancelled.
        Cancelled = "cancelled",
        /// It was dispatched.
        Shipped = "shipped",
    }
}

named! {
    /// The state of an order.
    State {
        /// Placed, without further facts.
        Placed = "placed",
        /// Paid; waits for its stock.
        Paid = "paid",
        /// Stock reserved; waits for its payment.
        Reserved = "reserved",
        /// Paid and reserved; waits for its dispatch.
        Ready = "ready",
        /// Its stock was released. The event with the reason, a declined payment or a cancellation,
        /// has not arrived.
        Released = "released",
        /// Final: there was not enough stock.
        Rejected = "rejected",
        /// Final: its payment was declined.
        Declined = "declined",
        /// Final: it was cancelled before its dispatch.
        Cancelled = "cancelled",
        /// Final: it was dispatched, whatever came later.
        Shipped = "shipped",
    }
}

impl State {
    /// The state that follows from `facts`, in any order: the one closest to the order's end.
    pub fn of(facts: &[Fact]) -> Self {
        let told = |fact| facts.contains(&fact);
        if told(Fact::Shipped) {
            Self::Shipped
        } else if told(Fact::Cancelled) {
            Self::Cancelled
        } else if told(Fact::Declined) {
            Self::Declined
        } else if told(Fact::Rejected) {
            Self::Rejected
        } else if told(Fact::Released) {
            Self::Released
        } else {
            match (told(Fact::Paid), told(Fact::Reserved)) {
                (true, true) => Self::Ready,
                (true, false) => Self::Paid,
                (false, true) => Self::Reserved,
                (false, false) => Self::Placed,
            }
        }
    }
}
