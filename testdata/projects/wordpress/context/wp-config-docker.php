<?php
function getenv_docker($env, $default) { return getenv($env) ?: $default; }
define("DB_NAME", getenv_docker("WORDPRESS_DB_NAME", "wordpress"));
