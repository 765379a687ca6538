//! What a container is asked to be, and what that means for an image.

use kiln_image::{Config, Digest};
use serde::{Deserialize, Serialize};

use crate::{Error, Volume};

/// What a container is asked to be. Empty or absent means: as the image says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOptions {
    /// The image's id.
    pub image: Option<Digest>,
    /// The image as the user named it.
    pub image_name: String,
    /// The name; one is made up when absent.
    pub name: Option<String>,
    /// Arguments after the image: they replace the image's command.
    pub command: Vec<String>,
    /// Replaces the image's entrypoint, and drops its command; an empty one clears it.
    pub entrypoint: Option<String>,
    /// `NAME=value`, over the image's environment.
    pub env: Vec<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// `user[:group]`.
    pub user: Option<String>,
    /// Host name; the first twelve digits of the id when absent.
    pub hostname: Option<String>,
    /// Folders of the host.
    pub volumes: Vec<Volume>,
    /// Whether the process has a terminal.
    pub terminal: bool,
    /// Whether standard input is passed on.
    pub interactive: bool,
    /// Whether there is a network besides loopback: the host's.
    pub host_network: bool,
}

impl RunOptions {
    /// The command line: Docker's rules for entrypoint and command (features E-60).
    pub(crate) fn arguments(&self, image: &Config) -> Result<Vec<String>, Error> {
        let (mut arguments, command) = match &self.entrypoint {
            Some(entrypoint) if entrypoint.is_empty() => (Vec::new(), &self.command),
            Some(entrypoint) => (vec![entrypoint.clone()], &self.command),
            None => {
                let command = if self.command.is_empty() {
                    &image.cmd
                } else {
                    &self.command
                };
                (image.entrypoint.clone(), command)
            }
        };
        arguments.extend(command.iter().cloned());
        if arguments.is_empty() {
            Err(Error::NoCommand)
        } else {
            Ok(arguments)
        }
    }

    /// The environment: the image's, what every container has, and what was asked for.
    pub(crate) fn environment(&self, image: &Config, hostname: &str, home: &str) -> Vec<String> {
        let mut env: Vec<String> = Vec::new();
        let mut set = |variable: &str, replace: bool| {
            let name = variable.split_once('=').map_or(variable, |(name, _)| name);
            let same = |other: &String| other.split_once('=').is_some_and(|(key, _)| key == name);
            match env.iter_mut().find(|other| same(other)) {
                Some(other) if replace => variable.clone_into(other),
                Some(_) => {}
                None => env.push(variable.to_owned()),
            }
        };
        image.env.iter().for_each(|variable| set(variable, true));
        self.env.iter().for_each(|variable| set(variable, true));
        set(&format!("HOSTNAME={hostname}"), false);
        set(&format!("HOME={home}"), false);
        if self.terminal {
            set("TERM=xterm", false);
        }
        env
    }
}

#[cfg(test)]
mod tests {
    use kiln_image::Config;

    use super::RunOptions;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn entrypoint_and_command_combine_as_in_docker() {
        let image = Config {
            entrypoint: words(&["e"]),
            cmd: words(&["c"]),
            ..Config::default()
        };
        let table: &[(Option<&str>, &[&str], &[&str])] = &[
            (None, &[], &["e", "c"]),
            (None, &["x"], &["e", "x"]),
            (Some("n"), &[], &["n"]),
            (Some("n"), &["x"], &["n", "x"]),
            (Some(""), &["x"], &["x"]),
        ];
        for (entrypoint, command, expected) in table {
            let options = RunOptions {
                entrypoint: entrypoint.map(str::to_owned),
                command: words(command),
                ..RunOptions::default()
            };
            assert_eq!(
                options.arguments(&image).ok(),
                Some(words(expected)),
                "{entrypoint:?} {command:?}"
            );
        }
        let nothing = RunOptions {
            entrypoint: Some(String::new()),
            ..RunOptions::default()
        };
        assert!(nothing.arguments(&image).is_err());
    }

    #[test]
    fn the_request_wins_over_the_image() {
        let image = Config {
            env: words(&["PATH=/bin", "A=1"]),
            ..Config::default()
        };
        let options = RunOptions {
            env: words(&["A=2", "B=3"]),
            ..RunOptions::default()
        };
        let env = options.environment(&image, "h", "/root");
        assert_eq!(
            env,
            words(&["PATH=/bin", "A=2", "B=3", "HOSTNAME=h", "HOME=/root"])
        );
    }
}
