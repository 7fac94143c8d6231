# The part of buildGoModule that matters here. The vendored modules are a fixed-output derivation, so a wrong vendorHash fails and the
# error names the right one. The package and its tests are compiled from the file set and these modules only. Where the real one runs the
# tests, this one only compiles them, because other checks run them already.
{
  host,
  lib,
  run,
}:
let
  build =
    {
      pname,
      version,
      src,
      vendorHash,
      goSum,
      env,
      ldflags,
      doCheck,
      __darwinAllowLocalNetworking,
      meta,
    }@attrs:
    let
      go = {
        GOCACHE = host.goCache;
        GOMODCACHE = host.goModCache;
        GOPROXY = "off";
        GOSUMDB = "off";
        GOTOOLCHAIN = "local";
        GOFLAGS = "";
        GOWORK = "off";
      };
      unpack = ''
        cp -r "$src" source
        chmod -R u+w source
        cd source
      '';
      goModules =
        run "${pname}-${version}-go-modules-${builtins.substring 0 8 (builtins.hashFile "sha256" goSum)}"
          (
            go
            // {
              inherit src;
              outputHash = vendorHash;
              outputHashMode = "recursive";
            }
          )
          ''
            ${unpack}
            go mod vendor
            cp -r vendor "$out"
          '';
    in
    run "${pname}-${version}" (go // env // { inherit src goModules ldflags; }) ''
      ${unpack}
      cp -r "$goModules" vendor
      export GOFLAGS="-mod=vendor -trimpath"
      GOBIN=$out/bin go install -ldflags "$ldflags -buildid=" ./...
      ${if doCheck then "go vet ./..." else ""}
    ''
    // {
      inherit meta goModules;
      overrideAttrs = changed: build (attrs // changed);
    };
in
build
