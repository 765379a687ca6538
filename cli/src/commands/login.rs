//! `kiln login` and `kiln logout`.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use kiln_registry::{Client, DockerConfig, ErrorKind, KeepError, Keeper, Secret, server_host};

use crate::arguments::{Login, Logout};
use crate::machine::Machine;
use crate::report::{self, Failure};
use crate::terminal;

/// The server that Docker names when it means Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";

/// No password is longer; tokens of clouds have a few KiB.
const PASSWORD_LIMIT: u64 = 1 << 20;

/// Runs `kiln login`.
pub(crate) fn login(machine: &Machine, arguments: &Login) -> Result<ExitCode, Failure> {
    if arguments.password_stdin && arguments.username.is_none() {
        return Err(Failure::usage(
            "the --password-stdin option requires --username to be set",
        ));
    }
    let host = host(arguments.server.as_deref())?;
    let path = machine.environment.docker_config();
    if arguments.username.is_none() && arguments.password.is_none() {
        let config = DockerConfig::load(&path).map_err(|error| Failure::error(&error))?;
        let known = config.unwrap_or_default().credentials(&host);
        if let Ok(Some(known)) = known {
            super::print("Authenticating with existing credentials...\n")?;
            match verify(machine, &host, &known.secret) {
                Ok(()) => {
                    super::print("Login Succeeded\n")?;
                    return Ok(ExitCode::SUCCESS);
                }
                Err(failure) if !std::io::stdin().is_terminal() => return Err(failure),
                Err(_) => report::warning("the existing credentials were refused"),
            }
        }
    }
    let secret = secret(arguments)?;
    verify(machine, &host, &secret)?;
    let keeper = DockerConfig::keep(&path, &[], &host, &secret).map_err(|error| keep_failure(&error))?;
    if let Keeper::File(path) = keeper {
        // As Docker says it, on standard error: what is on standard output is for scripts.
        let path = path.display();
        eprint_lines(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{path}'.\nConfigure a credential helper to \
             remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n"
        ));
    }
    super::print("Login Succeeded\n")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `kiln logout`.
pub(crate) fn logout(machine: &Machine, arguments: &Logout) -> Result<ExitCode, Failure> {
    let host = host(arguments.server.as_deref())?;
    let shown = if host == "docker.io" { HUB } else { &host };
    let path = machine.environment.docker_config();
    let forgotten = DockerConfig::forget(&path, &[], &host).map_err(|error| keep_failure(&error))?;
    super::print(&if forgotten {
        format!("Removing login credentials for {shown}\n")
    } else {
        format!("Not logged in to {shown}\n")
    })?;
    Ok(ExitCode::SUCCESS)
}

fn host(server: Option<&str>) -> Result<String, Failure> {
    let host = server_host(server.unwrap_or(HUB));
    if host.is_empty() {
        let server = server.unwrap_or_default();
        return Err(Failure::usage(format!(
            "{server:?} is no registry: expected host[:port]"
        )));
    }
    Ok(host)
}

fn keep_failure(error: &KeepError) -> Failure {
    Failure::error(error)
}

/// Asks the registry whether it takes the secret.
fn verify(machine: &Machine, host: &str, secret: &Secret) -> Result<(), Failure> {
    let mut config = machine.client_config();
    config.ca_bundles = kiln_registry::roots::system();
    config.docker_config = Some(DockerConfig::with_credentials(host, secret));
    let client = Client::new(config).map_err(|error| Failure::error(&error))?;
    client.login(host).map_err(|error| {
        let failure = Failure::message(format!("login attempt to {host} failed: {}", error.failure()));
        match (error.kind(), error.hint()) {
            (ErrorKind::Unauthorized | ErrorKind::Denied, _) => {
                failure.hint("check the user name and the password")
            }
            (_, Some(hint)) => failure.hint(hint),
            (_, None) => failure,
        }
    })
}

/// User and password: as given, from standard input, or asked for.
fn secret(arguments: &Login) -> Result<Secret, Failure> {
    let username = match &arguments.username {
        Some(username) => username.clone(),
        None if std::io::stdin().is_terminal() => ask("Username: ")?,
        None => return Err(no_terminal()),
    };
    let password = match &arguments.password {
        Some(password) => {
            report::warning("Using --password via the CLI is insecure. Use --password-stdin.");
            password.clone()
        }
        None if arguments.password_stdin => from_stdin()?,
        None if std::io::stdin().is_terminal() => {
            eprint_lines("Password: ");
            let password = terminal::hidden_line();
            eprint_lines("\n");
            password?
        }
        None => return Err(no_terminal()),
    };
    if username.is_empty() || password.is_empty() {
        let what = if username.is_empty() {
            "user name"
        } else {
            "password"
        };
        return Err(Failure::message(format!("the {what} is empty")));
    }
    Ok(Secret::Password { username, password })
}

fn no_terminal() -> Failure {
    Failure::message("Cannot perform an interactive login from a non TTY device")
        .hint("give --username, and the password by --password-stdin")
}

fn from_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(PASSWORD_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::io("read", "standard input", error))?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::message("the password is no text"))?;
    // One end of line belongs to `echo`, not to the password.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn ask(question: &str) -> Result<String, Failure> {
    eprint_lines(question);
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|error| Failure::io("read", "standard input", error))?;
    Ok(line.trim().to_owned())
}

fn eprint_lines(text: &str) {
    let mut out = std::io::stderr().lock();
    // Nothing can be done about a closed standard error.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
