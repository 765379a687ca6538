//! What the instructions of a stage change as they are lowered.

use std::collections::HashMap;

use kiln_image::{History, ImageConfig};

use crate::config;
use crate::environment::Environment;
use crate::history;
use crate::naming::{self, Target};
use crate::scope::DeclaredArgs;
use crate::step::Step;

/// The state of one stage between two instructions.
#[derive(Debug, Clone)]
pub(crate) struct StageState {
    /// The image's configuration so far: working directory, user, shell and history are its.
    pub(crate) config: ImageConfig,
    /// What a RUN sees: the config's variables and the ARGs, whichever came last.
    pub(crate) environment: Environment,
    /// Where each variable stands in the config's list.
    positions: HashMap<String, usize>,
    /// The ARGs declared so far.
    pub(crate) args: DeclaredArgs,
    /// Whether this very stage had a CMD: an ENTRYPOINT then keeps it.
    pub(crate) has_cmd: bool,
    /// The steps so far, not yet in the graph.
    pub(crate) steps: Vec<Step>,
    /// For each step, the target platform that its variables speak of.
    pub(crate) targets: Vec<Option<Target>>,
}

impl StageState {
    /// The state after FROM an image with this configuration.
    pub(crate) fn from_image(config: ImageConfig) -> Self {
        let environment = Environment::from_strings(&config.config.env);
        Self {
            positions: positions(&config.config.env),
            config,
            environment,
            args: DeclaredArgs::default(),
            has_cmd: false,
            steps: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// The state after FROM this stage. The ARGs stay declared and keep their values, except where the config
    /// has a variable of the same name.
    pub(crate) fn child(&self) -> Self {
        let config = config::inherit_stage(&self.config);
        let mut environment = self.environment.clone();
        environment.extend_from_strings(&config.config.env);
        Self {
            positions: positions(&config.config.env),
            config,
            environment,
            args: self.args.clone(),
            has_cmd: false,
            steps: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Sets a variable of the image; one that exists keeps its position.
    pub(crate) fn set_image_variable(&mut self, name: &str, value: &str) {
        let variables = &mut self.config.config.env;
        let variable = format!("{name}={value}");
        if let Some(&position) = self.positions.get(name) {
            variables[position] = variable;
        } else {
            self.positions.insert(name.to_owned(), variables.len());
            variables.push(variable);
        }
    }

    /// Appends the history entry of an instruction that makes no layer.
    pub(crate) fn record(&mut self, created_by: impl Into<String>) {
        self.push_history(history::metadata(created_by));
    }

    /// Appends a step together with the history entry of the layer that it makes.
    pub(crate) fn push_step(&mut self, step: Step, created_by: impl Into<String>) {
        self.steps.push(step);
        self.targets.push(naming::target(&self.environment));
        self.push_history(history::layer(created_by));
    }

    fn push_history(&mut self, entry: History) {
        self.config.history.push(entry);
    }

    /// What a copy of it takes, roughly, in bytes: each stage that is built from it has one.
    pub(crate) fn weight(&self) -> usize {
        let history = self.config.history.iter().map(entry_weight).sum::<usize>();
        // The config and the ARGs hold parts of the environment once more, and maps know all names.
        STAGE + history + 6 * self.environment.weight()
    }

    /// What the last instruction added, roughly, in bytes. A RUN has a copy of the environment.
    pub(crate) fn last_weight(&self) -> usize {
        let history = self.config.history.last();
        let is_layer = history.is_some_and(|entry| !entry.empty_layer);
        let step = if is_layer {
            STEP + self.environment.weight()
        } else {
            0
        };
        step + history.map_or(0, entry_weight)
    }

    /// The absolute working directory.
    pub(crate) fn workdir(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            directory => directory,
        }
    }

    /// The user as `user[:group]`; empty for root.
    pub(crate) fn user(&self) -> &str {
        &self.config.config.user
    }

    /// A shell form's arguments: the stage's shell and the command.
    pub(crate) fn shell_command(&self, command: &str) -> Vec<String> {
        let mut arguments = self.config.config.shell.clone();
        if arguments.is_empty() {
            arguments = vec!["/bin/sh".to_owned(), "-c".to_owned()];
        }
        arguments.push(command.to_owned());
        arguments
    }
}

/// What a stage takes, roughly, in bytes, whatever is in it.
const STAGE: usize = 4096;

/// What a step takes, roughly, in bytes: its vertex, its task, its names.
const STEP: usize = 8192;

/// What an entry of the history takes, roughly, in bytes.
fn entry_weight(entry: &History) -> usize {
    size_of::<History>() + entry.created_by.as_ref().map_or(0, String::len)
}

/// Where each variable stands in a list of `NAME=value`; the first of several.
fn positions(variables: &[String]) -> HashMap<String, usize> {
    let mut positions = HashMap::with_capacity(variables.len());
    for (position, variable) in variables.iter().enumerate() {
        let name = variable
            .split_once('=')
            .map_or(variable.as_str(), |(name, _)| name);
        positions.entry(name.to_owned()).or_insert(position);
    }
    positions
}
