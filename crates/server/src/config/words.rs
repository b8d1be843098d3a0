//! Keys that take one of a few words.

use serde_json::Value as Json;

use super::node::{Fault, Node};
use super::setting::Setting;

/// An enum whose variants are written as words in the configuration.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }

        impl Setting for $name {
            fn expected() -> String {
                expected(Self::WORDS)
            }

            fn read(node: &Node) -> Result<Self, Vec<Fault>> {
                let word = Self::WORDS.iter().find(|(word, _)| node.text() == Some(word));
                word.map(|(_, value)| *value).ok_or_else(|| node.wrong(Self::expected()))
            }

            fn json(&self) -> Json {
                Self::WORDS.iter().find(|(_, value)| value == self).map_or(Json::Null, |(word, _)| (*word).into())
            }
        }
    };
}

fn expected<T>(words: &[(&str, T)]) -> String {
    let quoted: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
    format!("one of {}", quoted.join(", "))
}

words! {
    /// What the disk tier takes in.
    Admission {
        /// Everything that fits.
        All = "all",
        /// What was asked for twice.
        SecondHit = "second_hit",
    }
}

words! {
    /// How the disk tier talks to the kernel.
    IoEngine {
        /// io_uring where it works, otherwise threads.
        Auto = "auto",
        /// io_uring, or the start fails.
        IoUring = "io_uring",
        /// A pool of threads.
        Threads = "threads",
    }
}

words! {
    /// What an acknowledged write survives.
    Durability {
        /// The death of the process.
        Process = "process",
        /// The loss of power.
        Power = "power",
        /// Nothing.
        None = "none",
    }
}

words! {
    /// What a node does that sees only part of its cluster.
    PartitionMode {
        /// `safe` from three members on.
        Auto = "auto",
        /// Only the majority takes writes.
        Safe = "safe",
        /// Both sides take writes.
        Available = "available",
    }
}

words! {
    /// The form of log lines.
    LogFormat {
        /// Text, in colour where stderr is a terminal.
        Auto = "auto",
        /// Text, also in colour only on a terminal.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// The least level that is logged.
    LogLevel {
        /// Nothing is logged.
        Off = "off",
        /// What failed and needs somebody.
        Error = "error",
        /// What is odd and works on.
        Warn = "warn",
        /// What an operator wants to read the next morning.
        Info = "info",
        /// What a developer wants to know.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

words! {
    /// What a request may do.
    Role {
        /// Nothing.
        None = "none",
        /// Read values.
        Read = "read",
        /// Read and write values.
        Write = "write",
        /// Everything, the administration of the node included.
        Admin = "admin",
    }
}
