//! The flags that change the configuration, the same for every command that has one.

use std::path::PathBuf;

use clap::Args;

use crate::config::{ConfigErrors, Sources};

/// Where the configuration comes from. What a flag's value may be is the configuration's to say.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// The configuration file; without it ./sightline.toml, where that exists
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to listen: HOST:PORT (IPv6 in brackets) or unix:/PATH; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<String>,
    /// How many event loops to run
    #[arg(long, value_name = "N")]
    pub cores: Option<String>,
    /// Where the event log lives
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<String>,
    /// keen or observatory
    #[arg(long, value_name = "DIALECT")]
    pub default_dialect: Option<String>,
    /// Any key of the configuration, for example limits.connections_max=5; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
}

impl ConfigArgs {
    /// This process's file, environment and flags.
    /// Errors: the file cannot be read.
    pub fn sources(&self) -> Result<Sources, ConfigErrors> {
        let mut sources = Sources::of_process(self.config.as_deref())?;
        sources.flags = self.flags();
        Ok(sources)
    }

    /// (As typed, key, value); the flags with a name of their own win over `--set`.
    fn flags(&self) -> Vec<(String, String, String)> {
        let set = self.set.iter().cloned();
        let set = set.map(|(key, value)| ("--set".to_string(), key, value));
        let listen = (!self.listen.is_empty()).then(|| self.listen.join(","));
        let named = [
            ("--listen", "listen", &listen),
            ("--cores", "cores", &self.cores),
            ("--data-dir", "data_dir", &self.data_dir),
            (
                "--default-dialect",
                "default_dialect",
                &self.default_dialect,
            ),
        ];
        let named = named.into_iter().filter_map(|(flag, key, value)| {
            let value = value.clone()?;
            Some((flag.to_string(), key.to_string(), value))
        });
        set.chain(named).collect()
    }
}

fn assignment(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.trim().into(), value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_keeps_the_name_under_which_it_was_typed() {
        let args = ConfigArgs {
            listen: vec!["127.0.0.1:1".into(), "unix:/s".into()],
            cores: Some("2".into()),
            set: vec![("cores".into(), "1".into())],
            ..ConfigArgs::default()
        };
        let flags = args.flags();
        let flags: Vec<(&str, &str, &str)> = flags
            .iter()
            .map(|(flag, key, value)| (flag.as_str(), key.as_str(), value.as_str()))
            .collect();
        let expected = [
            ("--set", "cores", "1"),
            ("--listen", "listen", "127.0.0.1:1,unix:/s"),
            ("--cores", "cores", "2"),
        ];
        assert_eq!(flags, expected);
    }

    #[test]
    fn an_assignment_is_split_at_its_first_equals_sign() {
        let pair = |key: &str, value: &str| Ok((key.to_string(), value.to_string()));
        assert_eq!(assignment("a.b=c=d"), pair("a.b", "c=d"));
        assert_eq!(assignment("a="), pair("a", ""));
        assert!(assignment("a").is_err());
    }
}
