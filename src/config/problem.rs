//! What is wrong with a configuration, by setting.

use std::fmt;

/// One refused setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The name as it was given.
    pub name: String,
    /// The whole sentence, name included.
    pub message: String,
}

impl Problem {
    /// A value that its setting does not take, in Kafka's words.
    #[must_use]
    pub fn invalid_value(name: &str, value: &str, why: impl fmt::Display) -> Problem {
        let message = format!("Invalid value {value} for configuration {name}: {why}");
        Problem {
            name: name.to_string(),
            message,
        }
    }

    /// A setting that is refused whatever its value, or together with others.
    #[must_use]
    pub fn refused(name: &str, why: impl fmt::Display) -> Problem {
        Problem {
            name: name.to_string(),
            message: format!("{name}: {why}"),
        }
    }
}

/// All refused settings of a configuration, so that a file is corrected in one go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Problems {
        Problems(vec![problem])
    }
}
