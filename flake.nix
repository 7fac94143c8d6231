{
  description = "Reverse proxy that adds the OAuth beta flag to requests for the Anthropic API";

  # It waits for the Darwin builds, which nixos-unstable does not.
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

      packageFor = pkgs: self.packages.${pkgs.stdenv.hostPlatform.system}.default;

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
        default = pkgs.buildGoModule {
          pname = "anthropic-oauth-proxy";
          version = lib.fileContents ./cmd/anthropic-oauth-proxy/VERSION;

          # The root module and what its tests read. Without one of its packages the vendored modules would be others.
          src = lib.fileset.toSource {
            root = ./.;
            fileset = lib.fileset.unions [
              ./go.mod
              ./go.sum
              ./cmd
              ./docs/contract.md
              ./internal
            ];
          };

          # `just vendor-hash` rewrites it, the tests in e2e/flake check it.
          vendorHash = "sha256-nVCFjaCVvX00D0evSgTpDc8DMY5Eh00Z0JQNCdUlHx0=";
          # Makes a stale vendorHash fail instead of silently building with the modules of yesterday.
          goSum = ./go.sum;

          env.CGO_ENABLED = 0;
          ldflags = [
            "-s"
            "-w"
          ];

          # `nix run` serves without running the tests first: they are a check of their own.
          doCheck = false;
          # They listen on loopback, which the sandbox of macOS has to allow.
          __darwinAllowLocalNetworking = true;

          meta = {
            description = "Reverse proxy that adds the OAuth beta flag to requests for the Anthropic API";
            license = lib.licenses.mit;
            mainProgram = "anthropic-oauth-proxy";
          };
        };
      });

      apps = eachSystem (pkgs: {
        default = {
          type = "app";
          program = lib.getExe (packageFor pkgs);
          meta.description = "Serve 127.0.0.1:8080 with the built-in defaults";
        };
      });

      # Everything the justfile, the tests and the workflows call. mkShell brings a C compiler: the race detector needs one.
      devShells = eachSystem (pkgs: {
        default = pkgs.mkShell {
          packages =
            formatters pkgs
            ++ [
              pkgs.actionlint
              pkgs.cosign
              pkgs.crane
              pkgs.curl
              pkgs.gh
              pkgs.git
              pkgs.golangci-lint
              pkgs.gopls
              pkgs.jq
              pkgs.kind
              pkgs.ko
              pkgs.kubectl
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
          # The Go of flake.lock and no other, or the image's digest would depend on who builds it.
          env.GOTOOLCHAIN = "local";
        };
      });

      checks = eachSystem (
        pkgs:
        let
          package = packageFor pkgs;
          # A check runs its script in a copy of the tree and passes if that does.
          check =
            name: tools: script:
            pkgs.runCommand name { nativeBuildInputs = tools; } ''
              cp -r ${self} tree
              chmod -R u+w tree
              cd tree
              export HOME=$TMPDIR
              ${script}
              touch "$out"
            '';
        in
        {
          inherit package;
          tests = package.overrideAttrs { doCheck = true; };
          formatting = check "formatting" (formatters pkgs) "treefmt --ci --walk filesystem";
          lint =
            check "lint"
              [
                pkgs.go
                pkgs.golangci-lint
              ]
              ''
                cp -r ${package.goModules} vendor
                golangci-lint run ./...
              '';
          scripts = check "scripts" [
            pkgs.shellcheck
          ] "shellcheck .ci/run .envrc .github/*.sh e2e/kind/*.sh";
          workflows =
            check "workflows"
              [
                pkgs.actionlint
                pkgs.shellcheck
                pkgs.zizmor
              ]
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
