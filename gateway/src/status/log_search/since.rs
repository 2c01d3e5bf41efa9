//! Where a search begins, and what it knows of the records before. Pure.

use evenkeel::kafka::reader::Start;

/// From when on a log is searched, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::status) enum Since {
    /// What is searched is not older, by a clock of gateway or brokers or by the caller's word.
    Known(i64),
    /// Its publisher set this time. It may be older: the latest records before are searched, too.
    Claimed(i64),
    /// As `Claimed`, for a time that is most probably right: records before are not searched.
    Probable(i64),
}

impl Since {
    /// This long before.
    pub(in crate::status) fn before(self, ms: i64) -> Self {
        match self {
            Self::Known(at) => Self::Known(at.saturating_sub(ms)),
            Self::Claimed(at) => Self::Claimed(at.saturating_sub(ms)),
            Self::Probable(at) => Self::Probable(at.saturating_sub(ms)),
        }
    }

    /// The time.
    pub(in crate::status) fn ms(self) -> i64 {
        let (Self::Known(ms) | Self::Claimed(ms) | Self::Probable(ms)) = self;
        ms.max(0)
    }

    /// The place on the log.
    pub(super) fn start(self) -> Start {
        Start::Time(self.ms())
    }
}

/// What a search knows of the records before its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::status) enum Earlier {
    /// None of them is the event, by the time that is known or as all were read.
    RuledOut,
    /// Only the latest ones were read.
    Limited,
    /// None was read.
    Unread,
}
