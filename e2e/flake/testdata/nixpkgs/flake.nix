# A nixpkgs small enough to be read and to need no download: every name that our flake uses, as plain derivations that call the
# tools of this machine (host.nix, which the test writes, says where they are). What the real functions refuse, these refuse.
{
  outputs =
    { self }:
    let
      host = import ./host.nix;
      lib = import ./lib.nix;

      # Builders end in a builtin: Nix 2.8 now and then kills one whose last command is a program of its own.
      run =
        name: attrs: script:
        derivation (
          {
            inherit name;
            inherit (host) system;
            builder = host.shell;
            args = [
              "-euc"
              # Go keeps telemetry at home. Nix's own HOME is a folder that must not come into being, which only root could make.
              ("export HOME=$TMPDIR\n" + script + "\nexit 0")
            ];
            PATH = host.path;
          }
          // attrs
        );

      package =
        name: commands:
        run name { } (
          ''
            mkdir -p "$out/bin"
          ''
          + builtins.concatStringsSep "\n" (
            map (command: ''
              printf '#!%s\nexec %s "$@"\n' "${host.shell}" "$(command -v ${command} || echo false)" > "$out/bin/${command}"
              chmod +x "$out/bin/${command}"
            '') commands
          )
        );

      tool = name: package name [ name ];

      pkgsFor =
        system:
        {
          inherit lib;
          stdenv.hostPlatform = {
            inherit system;
            isLinux = builtins.match ".*-linux" system != null;
          };

          go = package "go" [
            "go"
            "gofmt"
          ];
          prometheus.cli = tool "promtool";
          bashInteractive = package "bash-interactive" [ "bash" ]; # what nix develop starts
        }
        // builtins.listToAttrs (
          map
            (name: {
              inherit name;
              value = tool name;
            })
            [
              "cosign"
              "crane"
              "curl"
              "git"
              "golangci-lint"
              "gopls"
              "jq"
              "just"
              "kind"
              "ko"
              "kubectl"
              "kustomize"
              "nixfmt"
              "runc"
              "shellcheck"
            ]
        )
        // {
          buildGoModule = import ./go-module.nix { inherit host lib run; };

          mkShell =
            {
              packages,
              env ? { },
            }:
            run "shell" (
              env
              // {
                inherit packages;
                outputs = [ "out" ]; # nix develop asks for it by this variable
                stdenv = run "stdenv" { } ''
                  mkdir "$out"
                  printf 'for package in $packages; do PATH=$package/bin:$PATH; done\n' > "$out/setup"
                '';
              }
            ) ''echo "a shell is entered, not built" > "$out"'';

          runCommand = run;

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
        "x86_64-darwin"
      ] pkgsFor;
    };
}
