# A small stand-in for nixpkgs that needs no download. It has every name that our flake uses, as plain derivations that call the tools of
# this machine. The test writes host.nix, which says where they are. It refuses what the real functions refuse.
{
  outputs =
    { self }:
    let
      host = import ./host.nix;
      lib = import ./lib.nix;

      # Builders end in a shell builtin, because Nix 2.8 sometimes kills one whose last command is a program.
      run =
        name: attrs: script:
        derivation (
          {
            inherit name;
            inherit (host) system;
            builder = host.shell;
            args = [
              "-euc"
              # Go writes telemetry to the home folder. Nix sets HOME to a folder that must not exist.
              ("export HOME=$TMPDIR\n" + script + "\nexit 0")
            ];
            PATH = host.path;
          }
          // attrs
        );

      # Each command is the machine's own. If the machine lacks it, it runs `absent`.
      package =
        name: commands: absent:
        run name { } (
          ''
            mkdir -p "$out/bin"
          ''
          + builtins.concatStringsSep "\n" (
            map (command: ''
              printf '#!%s\nexec %s "$@"\n' "${host.shell}" "$(command -v ${command} || echo ${absent})" > "$out/bin/${command}"
              chmod +x "$out/bin/${command}"
            '') commands
          )
        );

      tool = name: package name [ name ] "false";

      pkgsFor =
        system:
        {
          inherit lib;
          stdenv.hostPlatform = {
            inherit system;
            isLinux = builtins.match ".*-linux" system != null;
          };

          go = package "go" [ "go" "gofmt" ] "false";
          nodejs = package "nodejs" [ "node" "npm" ] "false";
          iproute2 = package "iproute2" [ "ip" "ss" ] "false";
          go-tools = tool "staticcheck";
          prometheus.cli = tool "promtool";
          bashInteractive = package "bash-interactive" [ "bash" ] "false"; # the shell that nix develop starts
          # Debian has neither.
          kustomize = package "kustomize" [ "kustomize" ] "true";
          nixfmt = package "nixfmt" [ "nixfmt" ] "true";
        }
        // builtins.listToAttrs (
          map
            (name: {
              inherit name;
              value = tool name;
            })
            [
              "actionlint"
              "caddy"
              "cosign"
              "crane"
              "curl"
              "gh"
              "git"
              "gopls"
              "haproxy"
              "iptables"
              "jq"
              "just"
              "kind"
              "ko"
              "kubectl"
              "nginx"
              "runc"
              "shellcheck"
              "shfmt"
              "treefmt"
              "zizmor"
            ]
        )
        // rec {
          buildGoModule = import ./go-module.nix { inherit host lib run; };

          mkShellNoCC = mkShell;
          mkShell =
            {
              packages,
              env ? { },
            }:
            run "shell" (
              env
              // {
                inherit packages;
                outputs = [ "out" ]; # nix develop reads this variable
                stdenv = run "stdenv" { } ''
                  mkdir "$out"
                  printf 'for package in $packages; do PATH=$package/bin:$PATH; done\n' > "$out/setup"
                '';
              }
            ) ''echo "a shell is entered, not built" > "$out"'';

          # Only the named tools and those of every Linux are available. Go's caches avoid compiling its library again.
          runCommand =
            name:
            { nativeBuildInputs }:
            run name {
              PATH = builtins.concatStringsSep ":" (
                map (tool: "${tool}/bin") nativeBuildInputs ++ [ "/usr/bin:/bin" ]
              );
              GOCACHE = host.goCache;
              STATICCHECK_CACHE = host.goCache + "-lint";
              GOPROXY = "off";
            };

          writeShellApplication =
            {
              name,
              runtimeInputs,
              text,
            }:
            run name { inherit runtimeInputs text; } ''
              mkdir -p "$out/bin"
              {
                printf '#!%s\nset -euo pipefail\n' "${host.shell}"
                for input in $runtimeInputs; do printf 'PATH=%s/bin:$PATH\n' "$input"; done
                printf '%s\n' "$text"
              } > "$out/bin/${name}"
              chmod +x "$out/bin/${name}"
            ''
            // {
              meta.mainProgram = name;
            };
        };
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ] pkgsFor;
    };
}
