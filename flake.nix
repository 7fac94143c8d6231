{
  description = "Reverse proxy that adds the OAuth beta flag to requests for the Anthropic API";

  # Unlike nixos-unstable, this channel waits for the Darwin builds.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;

      eachSystem =
        outputs:
        lib.genAttrs [
          "x86_64-linux"
          "aarch64-linux"
          "aarch64-darwin"
        ] (system: outputs nixpkgs.legacyPackages.${system});

      # The part of the tree that a derivation depends on. A change elsewhere, in docs/ say, does not build it again.
      only =
        sets:
        lib.fileset.toSource {
          root = ./.;
          fileset = lib.fileset.unions sets;
        };

      module = [
        ./go.mod
        ./go.sum
        ./cmd
        ./internal
      ];

      packageFor =
        pkgs:
        pkgs.buildGoModule {
          pname = "anthropic-oauth-proxy";
          version = lib.fileContents ./cmd/anthropic-oauth-proxy/VERSION;

          # The root module and what its tests read. It needs every package, because the vendored modules depend on them.
          src = only (module ++ [ ./docs/contract.md ]);

          # `just vendor-hash` rewrites it. The tests in e2e/flake check it.
          vendorHash = "sha256-nVCFjaCVvX00D0evSgTpDc8DMY5Eh00Z0JQNCdUlHx0=";
          # This makes a stale vendorHash fail. Without it Nix would reuse the modules of an older build.
          goSum = ./go.sum;

          env.CGO_ENABLED = 0;
          ldflags = [
            "-s"
            "-w"
          ];

          # The tests are a separate check, so that `nix run` does not wait for them.
          doCheck = false;
          # They listen on loopback. On macOS the sandbox must be told to allow that.
          __darwinAllowLocalNetworking = true;

          meta = {
            description = "Reverse proxy that adds the OAuth beta flag to requests for the Anthropic API";
            license = lib.licenses.mit;
            mainProgram = "anthropic-oauth-proxy";
          };
        };

      # The programs that treefmt.toml calls.
      formatters = pkgs: [
        pkgs.treefmt
        pkgs.go
        pkgs.just
        pkgs.nixfmt
        pkgs.shfmt
      ];
    in
    {
      packages = eachSystem (pkgs: {
        default = packageFor pkgs;
      });

      overlays.default = final: _: { anthropic-oauth-proxy = packageFor final; };

      apps = eachSystem (pkgs: {
        default = {
          type = "app";
          program = lib.getExe (packageFor pkgs);
          meta.description = "Serve 127.0.0.1:8080 with the built-in defaults";
        };
      });

      devShells = eachSystem (
        pkgs:
        let
          # For the workflows, to render, publish and release. It is a smaller download than the default shell.
          publish = [
            pkgs.cosign
            pkgs.crane
            pkgs.go
            pkgs.just
            pkgs.ko
            pkgs.kubectl
          ];
          # Only the Go of flake.lock, so that the image's digest does not depend on who builds it.
          env.GOTOOLCHAIN = "local";
        in
        {
          publish = pkgs.mkShellNoCC {
            packages = publish;
            inherit env;
          };

          # Everything that the justfile, the tests and the workflows call. mkShell brings a C compiler: the race detector needs one.
          default = pkgs.mkShell {
            packages =
              publish
              ++ formatters pkgs
              ++ [
                pkgs.actionlint
                pkgs.curl
                pkgs.gh
                pkgs.git
                pkgs.go-tools # staticcheck
                pkgs.gopls
                pkgs.jq
                pkgs.kind
                pkgs.kustomize
                pkgs.nodejs # npm: Claude Code
                pkgs.prometheus.cli # promtool
                pkgs.shellcheck
                pkgs.zizmor
              ]
              ++ lib.optionals pkgs.stdenv.hostPlatform.isLinux [
                # The tests run the image and cut its network.
                pkgs.iproute2
                pkgs.iptables
                pkgs.runc
                # The programs that `just bench` compares with.
                pkgs.caddy
                pkgs.haproxy
                pkgs.nginx
              ];
            inherit env;
          };
        }
      );

      checks = eachSystem (
        pkgs:
        let
          package = packageFor pkgs;
          # A check runs its script in a copy of these parts of the tree. It passes if the script succeeds.
          check =
            name: tools: parts: script:
            pkgs.runCommand name { nativeBuildInputs = tools; } ''
              cp -r ${only parts} tree
              chmod -R u+w tree
              cd tree
              export HOME=$TMPDIR
              ${script}
              touch "$out"
            '';
          scripts = [
            ./.ci/run
            ./.envrc
            ./.github
            ./e2e/kind
          ];
        in
        {
          inherit package;
          tests = package.overrideAttrs { doCheck = true; };
          formatting = check "formatting" (formatters pkgs) (
            scripts
            ++ [
              ./justfile
              ./treefmt.toml
              (lib.fileset.fileFilter (file: file.hasExt "go" || file.hasExt "nix") ./.)
            ]
          ) "treefmt --ci --walk filesystem";
          lint =
            check "lint"
              [
                pkgs.go
                pkgs.go-tools
              ]
              (module ++ [ ./staticcheck.conf ])
              ''
                cp -r ${package.goModules} vendor
                go vet ./...
                staticcheck ./...
              '';
          scripts = check "scripts" [
            pkgs.shellcheck
          ] scripts "shellcheck .ci/run .envrc .github/*.sh e2e/kind/*.sh";
          workflows =
            check "workflows"
              [
                pkgs.actionlint
                pkgs.shellcheck
                pkgs.zizmor
              ]
              [ ./.github ]
              ''
                actionlint .github/workflows/*.yml
                zizmor --offline --quiet .github
              '';
          manifests =
            check "manifests"
              [
                package
                pkgs.kustomize
              ]
              [ ./k8s ]
              ''
                kustomize build k8s >manifest.yaml
                anthropic-oauth-proxy --check --config k8s/config.toml
              '';
        }
      );

      formatter = eachSystem (
        pkgs:
        pkgs.writeShellApplication {
          name = "format";
          runtimeInputs = formatters pkgs;
          text = ''treefmt "$@"'';
        }
      );
    };
}
