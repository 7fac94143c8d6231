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

          # The root module and what its tests read. If one of its packages were missing, other modules would be vendored.
          src = only (module ++ [ ./docs/contract.md ]);

          # `just vendor-hash` rewrites it, the tests in e2e/flake check it.
          vendorHash = "sha256-nVCFjaCVvX00D0evSgTpDc8DMY5Eh00Z0JQNCdUlHx0=";
          # With it a stale vendorHash fails. Without it Nix would reuse the modules of an older build.
          goSum = ./go.sum;

          env.CGO_ENABLED = 0;
          ldflags = [
            "-s"
            "-w"
          ];

          # The tests are a check of their own, so `nix run` need not wait for them.
          doCheck = false;
          # They listen on loopback, which the sandbox of macOS has to allow.
          __darwinAllowLocalNetworking = true;

          meta = {
            description = "Reverse proxy that adds the OAuth beta flag to requests for the Anthropic API";
            license = lib.licenses.mit;
            mainProgram = "anthropic-oauth-proxy";
          };
        };

      # What treefmt.toml calls.
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
          # What the workflows need to render, publish and release. Less to download than the shell for everything.
          publish = [
            pkgs.cosign
            pkgs.crane
            pkgs.go
            pkgs.just
            pkgs.ko
            pkgs.kubectl
          ];
          # The Go of flake.lock and no other, or the image's digest would depend on who builds it.
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
                pkgs.golangci-lint
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
                # The tests run the image, and take networks away from it.
                pkgs.iproute2
                pkgs.iptables
                pkgs.runc
                # What `just bench` compares with.
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
          # A check runs its script in a copy of these parts of the tree, and passes if the script does.
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
                pkgs.golangci-lint
              ]
              (module ++ [ ./.golangci.yml ])
              ''
                cp -r ${package.goModules} vendor
                golangci-lint run ./...
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
