//! What the instructions of a stage change as they are lowered.

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
            config,
            environment,
            args: self.args.clone(),
            has_cmd: false,
            steps: Vec::new(),
            targets: Vec::new(),
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
