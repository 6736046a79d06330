//! What a user writes and what it means: YAML → [`settings`] → [`resolve`] → [`Config`]. The only module that reads the
//! process environment; it connects to nothing.

pub mod choices;
mod columns;
#[cfg(test)]
mod example;
pub mod fields;
pub mod index;
mod interpolate;
pub mod maintenance;
pub mod mcp;
pub mod origin;
mod problem;
pub mod resolve;
pub mod secret;
pub mod settings;
pub mod sql;
pub mod table;
#[cfg(test)]
mod tests;
pub mod units;

use std::path::Path;

use yaml_serde::Value;

pub use interpolate::Env;
pub use resolve::Config;
pub use secret::Secret;
pub use table::TableConfig;

use crate::error::{Error, Result};
use settings::Settings;

/// The process's environment, as [`Config::load`] takes it.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
#[must_use]
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// `InvalidConfig` where the file cannot be read, and as [`Config::from_yaml`].
    pub fn load(path: &Path, env: Env) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::invalid_config(format!("read configuration file `{}`; give its path with -c", path.display()))
                .with_source(error)
        })?;
        Self::from_yaml(&text, env).map_err(|error| error.context(format!("configuration file `{}`", path.display())))
    }

    /// Reads and checks a configuration. Files that it names are opened only where their text is part of it.
    ///
    /// # Errors
    /// `InvalidConfig` with the dotted key, what was found and the remedy.
    pub fn from_yaml(text: &str, env: Env) -> Result<Self> {
        resolve::resolve(&read(text, env)?)
    }
}

/// YAML text as settings, placeholders replaced.
fn read(text: &str, env: Env) -> Result<Settings> {
    let malformed =
        |error: yaml_serde::Error| Error::invalid_config("the configuration is no valid YAML").with_source(error);
    let mut value: Value = yaml_serde::from_str(text).map_err(malformed)?;
    value.apply_merge().map_err(malformed)?;
    if value.is_null() {
        return Ok(Settings::default());
    }
    interpolate::interpolate(&mut value, "", env)?;
    serde_path_to_error::deserialize(value)
        .map_err(|error| problem::explain(&error.path().to_string(), &error.inner().to_string()))
}

/// JSON Schema of the configuration, for editors.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Settings).to_value()
}

/// The commented example; it loads as it is.
#[must_use]
pub fn example() -> &'static str {
    include_str!("../../config/example.yaml")
}
