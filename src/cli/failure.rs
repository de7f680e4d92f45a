//! Why a command failed, and the exit code that says so.

use std::fmt;
use std::io;

use crate::wire::error_code::ErrorCode;

/// Exit code of a command that did what it was asked to.
const EXIT_SUCCESS: u8 = 0;
/// Exit code when the broker refused, or when the work could not be done.
const EXIT_REFUSED: u8 = 1;
/// Exit code of wrong usage; clap uses the same.
const EXIT_USAGE: u8 = 2;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The user asked for something that cannot be meant.
    Usage(String),
    /// The command exists in the plan, not yet in this version.
    Unavailable(String),
    /// The broker said no.
    Refused {
        /// What it is about, like `topic orders`.
        subject: String,
        /// The code on the wire.
        code: i16,
        /// What the broker said beyond the code.
        message: Option<String>,
    },
    /// The broker cannot be reached, or the connection broke.
    Unreachable {
        /// Where it should be.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The broker sent what is not the protocol, or lacks what the command needs.
    Protocol {
        /// Who sent it.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// Something on this machine: a file, memory, a damaged segment.
    Local(String),
    /// Whoever read our stdout does not any more; no reason to say anything.
    OutputClosed,
}

impl Failure {
    /// What the broker answered about `subject`.
    pub(crate) fn refused(subject: impl Into<String>, code: i16, message: Option<&str>) -> Failure {
        Failure::Refused {
            subject: subject.into(),
            code,
            message: message.map(str::to_owned),
        }
    }

    /// Fails when `code` is an error.
    pub(crate) fn check(
        subject: impl Into<String>,
        code: i16,
        message: Option<&str>,
    ) -> Result<(), Failure> {
        if code == ErrorCode::None.code() {
            return Ok(());
        }
        Err(Failure::refused(subject, code, message))
    }

    /// A failed write to stdout.
    pub(crate) fn output(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Local(format!("stdout: {error}")),
        }
    }

    /// The broker's error, if that is what it is.
    pub(crate) fn error_code(&self) -> Option<ErrorCode> {
        match self {
            Failure::Refused { code, .. } => ErrorCode::from_code(*code),
            _ => None,
        }
    }

    /// Whether the same may work after a while, perhaps with another broker.
    pub(crate) fn is_retriable(&self) -> bool {
        match self {
            Failure::Unreachable { .. } => true,
            _ => self.error_code().is_some_and(ErrorCode::is_retriable),
        }
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => EXIT_USAGE,
            Failure::OutputClosed => EXIT_SUCCESS,
            _ => EXIT_REFUSED,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Local(text) => f.write_str(text),
            Failure::Unavailable(what) => {
                write!(f, "{what} is not available yet in this version of percolog")
            }
            Failure::Refused {
                subject,
                code,
                message,
            } => {
                let known = ErrorCode::from_code(*code);
                match known {
                    Some(error) => write!(f, "{subject}: {}", error.name())?,
                    None => write!(f, "{subject}: unknown error code {code}")?,
                }
                let text = message.as_deref().filter(|text| !text.is_empty());
                match text.or(known.map(ErrorCode::message)) {
                    Some(text) => write!(f, ": {text}"),
                    None => Ok(()),
                }
            }
            Failure::Unreachable { address, reason } => {
                write!(f, "cannot talk to the broker at {address}: {reason}")
            }
            Failure::Protocol { address, reason } => {
                write!(f, "the broker at {address} answered wrongly: {reason}")
            }
            Failure::OutputClosed => f.write_str("stdout was closed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_kafkas_name_and_the_brokers_words() {
        let failure = Failure::refused("topic a", 36, Some("Topic 'a' already exists."));
        assert_eq!(
            failure.to_string(),
            "topic a: TOPIC_ALREADY_EXISTS: Topic 'a' already exists."
        );
        assert_eq!(failure.exit_code(), 1);
        assert!(!failure.is_retriable());
    }

    #[test]
    fn a_refusal_without_words_gets_ours_and_an_unknown_code_its_number() {
        let ours = Failure::refused("topic a", 3, Some("")).to_string();
        assert!(
            ours.starts_with("topic a: UNKNOWN_TOPIC_OR_PARTITION: There"),
            "{ours}"
        );
        assert_eq!(
            Failure::refused("topic a", 9999, None).to_string(),
            "topic a: unknown error code 9999"
        );
    }

    #[test]
    fn retriable_is_what_clients_retry() {
        assert!(Failure::refused("", 6, None).is_retriable());
        assert!(!Failure::refused("", 9999, None).is_retriable());
        let unreachable = Failure::Unreachable {
            address: "a:1".to_owned(),
            reason: "refused".to_owned(),
        };
        assert!(unreachable.is_retriable());
        assert!(!Failure::Usage(String::new()).is_retriable());
    }

    #[test]
    fn exit_codes_are_those_of_the_interface() {
        assert_eq!(Failure::Usage(String::new()).exit_code(), 2);
        assert_eq!(Failure::Unavailable(String::new()).exit_code(), 1);
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::output(&closed).exit_code(), 0);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Failure::output(&full).exit_code(), 1);
    }

    #[test]
    fn none_is_no_failure() {
        assert!(Failure::check("x", 0, None).is_ok());
        assert!(Failure::check("x", -1, None).is_err());
    }
}
